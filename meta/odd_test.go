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

// namelessListener accepts connections that have no addresses.
type namelessListener struct{ net.Listener }

func (l namelessListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return namelessConn{conn}, err
}

type namelessConn struct{ net.Conn }

func (namelessConn) RemoteAddr() net.Addr { return nil }
func (namelessConn) LocalAddr() net.Addr  { return nil }

// A connection of a given listener may have no addresses.
func TestListenerOfConnectionsWithoutAddress(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{Listener: namelessListener{newListener(t)}, CertManager: m.manager, MaxConnectionsPerAddress: 1})
		for range 2 {
			talk(t, m.dial(t, addr))
		}
	})
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
