package meta_test

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// oddListener gives something else in place of the first connection.
type oddListener struct {
	net.Listener
	first *sync.Once
	odd   func(net.Conn) net.Conn
}

func (l oddListener) Accept() (conn net.Conn, err error) {
	if conn, err = l.Listener.Accept(); err == nil {
		l.first.Do(func() { conn = l.odd(conn) })
	}
	return conn, err
}

// addrConn has another remote address.
type addrConn struct {
	net.Conn
	addr func() net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.addr() }
func (c addrConn) LocalAddr() net.Addr  { return c.addr() }

// A connection that cannot be used costs itself and not the server.
func TestListenerOfOddConnections(t *testing.T) {
	for name, c := range map[string]struct {
		odd  func(net.Conn) net.Conn
		logs string
	}{
		"nil":       {func(c net.Conn) net.Conn { c.Close(); return nil }, "neither a connection nor an error"},
		"nil value": {func(c net.Conn) net.Conn { c.Close(); return (*net.TCPConn)(nil) }, "panicked"},
		"address that panics": {func(c net.Conn) net.Conn {
			return addrConn{c, func() net.Addr { panic("boom") }}
		}, "panicked: boom"},
		"no address": {func(c net.Conn) net.Conn { return addrConn{c, func() net.Addr { return nil }} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, m := range []mode{modes()[0], modes()[2]} {
				a := newHost(t).spawn(echo)
				id, addr := a.listen(meta.TCPServerOptions{
					Listener: oddListener{newListener(t), new(sync.Once), c.odd}, CertManager: m.manager, MaxConnections: 1, MaxConnectionsPerAddress: 1,
				})
				if conn := dialTCP(t, addr); c.logs == "" {
					talk(t, m.secure(t, conn))
					conn.Close()
				} else {
					_, err := io.ReadAll(conn)
					assertEnded(t, err)
					eventually(t, a.h.log.contains(c.logs), "it is logged")
				}
				talk(t, m.dial(t, addr))
				assert.Equal(t, "1", a.inspect(id)["connections"])
			}
		})
	}
}

// A pool that panics costs the connection that it was asked for.
func TestBufferPoolThatPanics(t *testing.T) {
	var panics atomic.Bool
	pool := &sync.Pool{New: func() any {
		if panics.Load() {
			panic("boom")
		}
		return make([]byte, 100)
	}}
	a := newHost(t).spawn(nil)
	id, addr := a.listen(meta.TCPServerOptions{BufferPool: pool})
	say := func(text string) net.Conn {
		peer := dialTCP(t, addr)
		_, err := io.WriteString(peer, text)
		require.NoError(t, err)
		return peer
	}
	say("takes the buffer away")
	expect[meta.MessageTCPConnect](a)
	expect[meta.MessageTCP](a)
	panics.Store(true)
	for ended := false; !ended; { // the pool may still have buffers, which each takes away
		peer := say("x")
		peer.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err := io.ReadAll(peer)
		ended = !errors.Is(err, os.ErrDeadlineExceeded)
	}
	panics.Store(false)
	say("served")
	eventually(t, func() bool {
		m, ok := (<-a.mail).(meta.MessageTCP)
		return ok && string(m.Data) == "served"
	}, "the server goes on")
	assert.NotEmpty(t, a.inspect(id)["listen"])
}

// The longest duration and the largest number mean no limit.
func TestLargestOptions(t *testing.T) {
	const never = time.Duration(math.MaxInt64)
	eachMode(t, func(t *testing.T, m mode) {
		options := meta.TCPServerOptions{
			CertManager: m.manager, IdleTimeout: never, WriteTimeout: never, CloseTimeout: never, HalfClose: never, MaxLifetime: never,
			KeepAliveMessage: []byte("ping"), KeepAliveMessagePeriod: never, Active: math.MaxInt, MaxConnections: math.MaxInt, MaxConnectionsPerAddress: math.MaxInt,
			WriteBuffer: math.MaxInt / 16,
		}
		if m.tls() {
			options.HandshakeTimeout, options.MaxHandshakes, options.MaxHandshakeFailures = never, math.MaxInt, math.MaxInt
		}
		a := newHost(t).spawn(echo)
		_, addr := a.listen(options)
		peer := m.dial(t, addr)
		for range 3 {
			talk(t, peer)
		}
	})
	_, err := meta.CreateTCPServer(meta.TCPServerOptions{WriteBuffer: math.MaxInt})
	require.ErrorIs(t, err, meta.ErrOption)
	require.ErrorContains(t, err, "WriteBuffer")
}
