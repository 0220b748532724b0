package meta_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"

	"github.com/ergotls/ergotls/meta"
)

// impatientListener lets the kernel give a peer up that takes nothing for a moment.
type impatientListener struct{ net.Listener }

func (l impatientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 100)
	})
	return conn, err
}

// A peer that the kernel gives up has not closed in order, nor is it slow: it is gone.
func TestKernelGivesUp(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Listener: impatientListener{newListener(t)}})
		conn, err := net.Dial("tcp", addr)
		assert.NoError(t, err)
		defer conn.Close()
		assert.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
		m.secure(t, conn)
		id := expect[meta.MessageTCPConnect](a).ID
		// More than the peer's window and less than our kernel's buffer: the read hears of it.
		a.send(id, meta.MessageTCP{Data: make([]byte, 200<<10)})
		reason := expect[meta.MessageTCPDisconnect](a).Reason
		assert.ErrorIs(t, reason, meta.ErrReset)
		assert.ErrorIs(t, reason, syscall.ETIMEDOUT)
	})
}
