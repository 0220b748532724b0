package meta_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// Who only speaks is not idle.
func TestReadingIsNotIdle(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		const idle = time.Second
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, IdleTimeout: idle})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		tick := time.NewTicker(idle / 20)
		defer tick.Stop()
		for since := time.Now(); time.Since(since) < idle+idle/4; <-tick.C {
			_, err := io.WriteString(peer, "x")
			require.NoError(t, err)
			assert.Equal(t, "x", string(expect[meta.MessageTCP](a).Data))
		}
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrIdle, "when it has fallen silent")
	})
}

// tightListener gives its connections a small buffer for what is to be sent, so that little is taken often.
type tightListener struct{ net.Listener }

func (l tightListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(128 << 10)
	}
	return conn, err
}

// Nor is who takes long for one message, as long as it takes some of it, and no slow consumer.
func TestWritingIsNotIdle(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		const idle, size, step = time.Second, 5 << 20, 64 << 10
		a := newHost(t).spawn(nil)
		var listener net.Listener = tightListener{newListener(t)}
		if certs, ok := m.manager.(manager); ok && certs.wrapped {
			listener = wrappingListener{listener}
		}
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Listener: listener, IdleTimeout: idle, WriteTimeout: idle})
		peer := m.dial(t, addr)
		require.NoError(t, rawTCP(peer).SetReadBuffer(256<<10)) // else the kernel takes most of it at once
		id := expect[meta.MessageTCPConnect](a).ID
		since := time.Now()
		a.send(id, meta.MessageTCP{Data: make([]byte, size)})
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range size / step {
			_, err := io.CopyN(io.Discard, peer, step)
			require.NoError(t, err)
			require.Equal(t, "active", a.inspect(id)["state"])
			<-tick.C
		}
		assert.Greater(t, time.Since(since), idle)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrIdle, "when all is taken")
	})
}
