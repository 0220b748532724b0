package meta_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// more is more than the window of a peer with a small buffer, and less than what our kernel takes:
// all of it is written, and only the kernel sees that the peer does not read.
const more = 200 << 10

// A peer that the kernel gives up has not closed in order, nor is it slow: it is gone.
func TestUserTimeout(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{
			CertManager: m.manager, Listener: newListener(t), UserTimeout: 100 * time.Millisecond,
		})
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		m.secure(t, conn)
		a.send(expect[meta.MessageTCPConnect](a).ID, meta.MessageTCP{Data: make([]byte, more)})
		reason := expect[meta.MessageTCPDisconnect](a).Reason
		assert.ErrorIs(t, reason, meta.ErrReset)
		assert.ErrorIs(t, reason, syscall.ETIMEDOUT)
	})
}

// The same for an outgoing connection. The buffer of the server's connections is its listener's.
func TestUserTimeoutOutgoing(t *testing.T) {
	listener := newListener(t)
	raw, err := listener.(*net.TCPListener).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
	}))
	require.NoError(t, err)
	addr := listener.Addr().(*net.TCPAddr)
	a := newHost(t).spawn(nil)
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{
		Host: addr.IP.String(), Port: uint16(addr.Port), UserTimeout: 100 * time.Millisecond,
	})
	require.NoError(t, err)
	a.do(func(o *owner) {
		_, err := o.SpawnMeta(connection, gen.MetaOptions{})
		assert.NoError(t, err)
	})
	accepted, err := listener.Accept()
	require.NoError(t, err)
	defer accepted.Close()
	a.send(expect[meta.MessageTCPConnect](a).ID, meta.MessageTCP{Data: make([]byte, more)})
	assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, syscall.ETIMEDOUT)
}

// Without it such a peer keeps its connection, unless IdleTimeout ends it.
func TestIdleTimeoutOfAPeerThatDoesNotRead(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{
			CertManager: m.manager, WriteTimeout: 100 * time.Millisecond, IdleTimeout: 300 * time.Millisecond,
		})
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		m.secure(t, conn)
		a.send(expect[meta.MessageTCPConnect](a).ID, meta.MessageTCP{Data: make([]byte, more)})
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrIdle)
	})
}
