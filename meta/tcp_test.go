package meta_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
)

func TestEcho(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		conn := m.dial(t, addr)

		connect := expect[meta.MessageTCPConnect](a)
		assert.Equal(t, conn.LocalAddr().String(), connect.RemoteAddr.String())
		assert.Equal(t, addr, connect.LocalAddr.String())
		assert.Equal(t, m.tls(), connect.TLS != nil)
		assert.Equal(t, m.name == "mTLS", connect.Peer.Verified)
		if m.name == "mTLS" {
			assert.Equal(t, "CN=client.example.test", connect.Peer.Subject)
		}

		sent := make([]byte, 300<<10)
		rand.Read(sent)
		var writing sync.WaitGroup
		writing.Go(func() { _, _ = conn.Write(sent) })
		got := make([]byte, len(sent))
		_, err := io.ReadFull(conn, got)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(sent, got), "the echo differs")

		writing.Wait() // beside a Write crypto/tls closes without close_notify
		require.NoError(t, conn.Close())
		disconnect := expect[meta.MessageTCPDisconnect](a)
		assert.Equal(t, connect.ID, disconnect.ID)
		assert.ErrorIs(t, disconnect.Reason, meta.ErrClosedByPeer)
		var reason *meta.DisconnectError
		require.ErrorAs(t, disconnect.Reason, &reason)
		assert.EqualValues(t, len(sent), reason.Accepted)
		assert.Equal(t, reason.Accepted, reason.Written)
	})
}

// Both ends are actors.
func TestActorToActor(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		server, client := h.spawn(echo), h.spawn(nil)
		_, addr := server.listen(meta.TCPServerOptions{CertManager: m.manager})
		id := client.connect(meta.TCPConnectionOptions{Port: portOf(t, addr), CertManager: m.manager})
		client.send(id, meta.MessageTCP{Data: []byte("hello")}) // before Connect: it waits for the handshake

		connect := expect[meta.MessageTCPConnect](client)
		assert.Equal(t, id, connect.ID)
		assert.Equal(t, m.tls(), connect.Peer.Verified)
		assert.Equal(t, "hello", string(expect[meta.MessageTCP](client).Data))
		client.send(id, meta.MessageTCPClose{})
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](client).Reason, meta.ErrTerminated)
		expect[meta.MessageTCPConnect](server)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](server).Reason, meta.ErrClosedByPeer)
	})
}

func TestRoundRobin(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		workers := []*actor{h.spawnNamed("one", echo), h.spawnNamed("two", echo)}
		parent := h.spawn(nil)
		_, addr := parent.listen(meta.TCPServerOptions{CertManager: m.manager, ProcessPool: []gen.Atom{"one", "two"}})
		for i := range 4 {
			conn := m.dial(t, addr)
			connect := expect[meta.MessageTCPConnect](workers[i%2])
			assert.Equal(t, conn.LocalAddr().String(), connect.RemoteAddr.String())
		}
		parent.quiet()
	})
}

func TestUndeliverableEndsConnection(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		parent := newHost(t).spawn(nil)
		server, addr := parent.listen(meta.TCPServerOptions{CertManager: m.manager, ProcessPool: []gen.Atom{"nobody"}})
		_, err := m.dial(t, addr).Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
		parent.quiet()
		assert.Equal(t, "1", parent.inspect(server)["refused"])
		assert.Equal(t, "0", parent.inspect(server)["handshake failures"])
		eventually(t, parent.h.log.contains("refused: owner gone: meta.MessageTCPConnect not delivered to 'nobody'"), "it is said why")
	})
}

func TestTerminateFreesPort(t *testing.T) {
	free := func(t *testing.T, addr string) {
		t.Helper()
		eventually(t, func() bool { // an engine may end meta processes after their parent
			listener, err := net.Listen("tcp", addr)
			if err == nil {
				listener.Close()
			}
			return err == nil
		}, "the port is free")
	}
	t.Run("never spawned, twice", func(t *testing.T) {
		addr := fmt.Sprintf("127.0.0.1:%d", needs.Port(t))
		server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", Port: portOf(t, addr)})
		require.NoError(t, err)
		_, err = meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", Port: portOf(t, addr)})
		require.ErrorIs(t, err, meta.ErrListen)
		server.Terminate(nil)
		server.Terminate(nil)
		free(t, addr)
	})
	t.Run("running", func(t *testing.T) {
		a := newHost(t).spawn(nil)
		id, addr := a.listen(meta.TCPServerOptions{})
		a.do(func(o *owner) { require.NoError(t, o.MonitorAlias(id)) })
		a.do(func(o *owner) { require.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
		expect[gen.MessageDownAlias](a)
		free(t, addr)
	})
	t.Run("parent ends", func(t *testing.T) {
		h := newHost(t)
		a := h.spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{})
		h.Stop()
		free(t, addr)
	})
	t.Run("outgoing, never spawned, twice", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: "127.0.0.1", Port: portOf(t, listener.Addr().String())})
		require.NoError(t, err)
		accepted, err := listener.Accept()
		require.NoError(t, err)
		defer accepted.Close()
		connection.Terminate(nil)
		connection.Terminate(nil)
		accepted.SetDeadline(time.Now().Add(testTimeout))
		_, err = accepted.Read(make([]byte, 1))
		assert.ErrorIs(t, err, io.EOF)
	})
}
