package meta_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

var errCable = errors.New("somebody has stumbled over the cable")

// brittleListener makes connections that fail in one direction when they are told to, in words of
// their own.
type brittleListener struct {
	net.Listener
	noReads, noWrites atomic.Bool
}

type brittleConn struct {
	net.Conn
	l *brittleListener
}

func (l *brittleListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return brittleConn{conn, l}, nil
}

func (c brittleConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.l.noReads.Load() {
		return 0, errCable
	}
	return n, err
}

func (c brittleConn) Write(b []byte) (int, error) {
	if c.l.noWrites.Load() {
		return 0, errCable
	}
	return c.Conn.Write(b)
}

// An error of a given Listener's connection that says nothing to us is the network's, and no
// violation of TLS.
func TestForeignReadError(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		listener := &brittleListener{Listener: newListener(t)}
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Listener: listener})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		listener.noReads.Store(true)
		_, err := io.WriteString(peer, "x")
		require.NoError(t, err)
		reason := expect[meta.MessageTCPDisconnect](a).Reason
		assert.ErrorIs(t, reason, meta.ErrReset)
		assert.ErrorIs(t, reason, errCable)
	})
}

// A write that fails ends the connection also where its reads go on waiting, whenever it fails.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(func(o *owner, message any) bool {
			if m, ok := message.(meta.MessageTCPConnect); ok { // while the read loop begins
				o.SendAlias(m.ID, meta.MessageTCP{Data: make([]byte, 32<<10)})
			}
			return false
		})
		listener := &brittleListener{Listener: newListener(t)}
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Listener: listener})
		peer := m.dial(t, addr)
		_, err := io.ReadFull(peer, make([]byte, 32<<10))
		require.NoError(t, err)
		id := expect[meta.MessageTCPConnect](a).ID
		listener.noWrites.Store(true)
		a.send(id, meta.MessageTCP{Data: []byte("lost")})
		reason := expect[meta.MessageTCPDisconnect](a).Reason
		assert.ErrorIs(t, reason, meta.ErrReset)
		assert.ErrorIs(t, reason, errCable)
		assert.ErrorContains(t, reason, "(32768 of 32772 bytes written)")

		if m.tls() {
			return // its handshake would fail already
		}
		const crowd = 50
		for range crowd {
			m.dial(t, addr)
		}
		for range 2 * crowd {
			if disconnect, ok := expect[any](a).(meta.MessageTCPDisconnect); ok {
				assert.ErrorIs(t, disconnect.Reason, errCable)
			}
		}
	})
}
