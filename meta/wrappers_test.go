package meta_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// connListener changes the connections that it accepts.
type connListener struct {
	net.Listener
	change func(*net.TCPConn) net.Conn
}

func (l connListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.change(conn.(*net.TCPConn)), nil
}

// inverted is a connection whose bytes are all inverted on the wire. It has all that a *net.TCPConn
// has, its descriptor too.
type inverted struct{ *net.TCPConn }

func (c inverted) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	invert(b[:n])
	return n, err
}

func (c inverted) Write(b []byte) (int, error) {
	b = bytes.Clone(b)
	invert(b)
	return c.TCPConn.Write(b)
}

// stalling is a connection that takes left bytes more, and then none.
type stalling struct {
	net.Conn
	left    atomic.Int64
	stalled net.Conn
}

func (c *stalling) SetWriteDeadline(t time.Time) error {
	return errors.Join(c.stalled.SetWriteDeadline(t), c.Conn.SetWriteDeadline(t))
}

func (c *stalling) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b[:min(c.left.Load(), int64(len(b)))])
	if c.left.Add(int64(-n)); err == nil && n < len(b) {
		_, err = c.stalled.Write(b[n:])
	}
	return n, err
}

// A TLS record of which the peer has only a part is not written, however short the connection was
// open: what is said to be written can be read, and nothing else.
func TestWrittenIsWhatCanBeRead(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		accepted := make(chan *stalling, 1)
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteTimeout: 100 * time.Millisecond, Listener: connListener{tcp, func(tcp *net.TCPConn) net.Conn {
			c := &stalling{Conn: tcp}
			c.left.Store(1 << 20)
			c.stalled, _ = net.Pipe()
			accepted <- c
			return c
		}}})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		(<-accepted).left.Store(3000)
		a.send(id, meta.MessageTCP{Data: make([]byte, 10_000)})
		reason := expect[meta.MessageTCPDisconnect](a).Reason.(*meta.DisconnectError)
		assert.ErrorIs(t, reason, meta.ErrSlowConsumer)
		got, _ := io.Copy(io.Discard, peer)
		assert.EqualValues(t, reason.Written, got)
	})
}

func invert(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}

// A connection of a given Listener is read and written through its own methods, whatever it embeds.
func TestWrapperThatEmbedsTCPConn(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		listener := newListener(t)
		a.listen(meta.TCPServerOptions{CertManager: m.manager, Listener: connListener{listener, func(c *net.TCPConn) net.Conn { return inverted{c} }}})
		peer := m.secure(t, inverted{dialTCP(t, listener.Addr().String()).(*net.TCPConn)})
		sent, got := random(1<<20), make([]byte, 1<<20)
		go peer.Write(sent)
		_, err := io.ReadFull(peer, got)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(sent, got))
	})
}

// The last words of a connection whose type has no CloseWrite are not lost in a reset, though the
// peer has sent what nobody has read.
func TestWrapperWithoutCloseWrite(t *testing.T) {
	words := random(100_000)
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		listener := newListener(t)
		a.listen(meta.TCPServerOptions{CertManager: m.manager, Active: 1, Listener: connListener{listener, func(c *net.TCPConn) net.Conn { return struct{ net.Conn }{c} }}})
		for range 5 {
			peer := m.dial(t, listener.Addr().String())
			id := expect[meta.MessageTCPConnect](a).ID
			for range 3 {
				_, err := peer.Write(make([]byte, 1000))
				require.NoError(t, err)
			}
			expect[meta.MessageTCP](a)
			expect[meta.MessageTCPPassive](a)
			a.send(id, meta.MessageTCP{Data: words})
			a.send(id, meta.MessageTCPClose{})
			assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
			got, err := io.ReadAll(peer)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(words, got))
		}
	})
}

// A peer that takes bytes all the time is neither a slow consumer nor idle, however slowly, and
// however long its kernel and ours take to pass on that it does. The connections of a wrapper can't
// be asked what the peer's kernel has taken.
func TestSlowReaderIsNotCutOff(t *testing.T) {
	t.Parallel()
	const limit, size, step = time.Second, 8 << 20, 30 << 10
	eachMode(t, func(t *testing.T, m mode) {
		if m.name == "wrapped" {
			t.Skip("it can't be told")
		}
		a, sent := newHost(t).spawn(nil), random(size)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteTimeout: limit, IdleTimeout: limit})
		conn := dialTCP(t, addr).(*net.TCPConn)
		require.NoError(t, conn.SetReadBuffer(64<<10))
		peer := m.secure(t, conn)
		id := expect[meta.MessageTCPConnect](a).ID
		a.send(id, meta.MessageTCP{Data: sent})
		var got []byte
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for since := time.Now(); time.Since(since) < 5*limit; <-tick.C {
			piece := make([]byte, step)
			_, err := io.ReadFull(peer, piece)
			require.NoError(t, err)
			got = append(got, piece...)
		}
		a.quiet()
		rest := make([]byte, size-len(got))
		_, err := io.ReadFull(peer, rest)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(sent, append(got, rest...)))
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrIdle, "when it has taken all")
	})
}

// forgetful is a connection that has no address after it was closed, as those of a network in the
// program.
type forgetful struct {
	*net.TCPConn
	closed atomic.Bool
}

func (c *forgetful) Close() error {
	c.closed.Store(true)
	return c.TCPConn.Close()
}

func (c *forgetful) RemoteAddr() net.Addr {
	if c.closed.Load() {
		return nil
	}
	return c.TCPConn.RemoteAddr()
}

// A connection counts for the address that it had when it was accepted: one that has ended does not
// count any more, and one whose handshake has timed out does.
func TestWrapperThatForgetsItsAddress(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		listener := newListener(t)
		options := meta.TCPServerOptions{
			CertManager: m.manager, MaxConnectionsPerAddress: 1,
			Listener: connListener{listener, func(c *net.TCPConn) net.Conn { return &forgetful{TCPConn: c} }},
		}
		if m.tls() {
			options.HandshakeTimeout, options.MaxHandshakeFailures = 500*time.Millisecond, 1
		}
		a.listen(options)
		server := a.server
		none := func() bool { stats := meta.Stats(server); return stats.Connections+stats.Establishing == 0 }
		for range 3 {
			peer := m.dial(t, listener.Addr().String())
			expect[meta.MessageTCPConnect](a)
			peer.Close()
			expect[meta.MessageTCPDisconnect](a)
			eventually(t, none, "it has ended")
		}
		if !m.tls() {
			return
		}
		_, err := dialTCP(t, listener.Addr().String()).Write([]byte{22})
		require.NoError(t, err)
		eventually(t, func() bool { return meta.Stats(server).Refused["timeout"] == 1 && none() }, "its handshake times out")
		_, err = io.ReadAll(dialTCP(t, listener.Addr().String()))
		assertEnded(t, err)
		eventually(t, func() bool { return meta.Stats(server).Refused["limit"] == 1 }, "it is over the limit")
	})
}

// A connection whose RemoteAddr waits for a header of its peer holds up no other one, and counts
// for the address in the header.
func TestWrapperThatWaitsForItsAddress(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		listener := newListener(t)
		a.listen(meta.TCPServerOptions{CertManager: m.manager, MaxConnectionsPerAddress: 1, Listener: &proxyproto.Listener{Listener: listener, ReadHeaderTimeout: 2 * testTimeout}})
		addr := listener.Addr().String()
		dialTCP(t, addr) // silent
		header := func(client string) net.Conn {
			conn := dialTCP(t, addr)
			_, err := io.WriteString(conn, "PROXY TCP4 "+client+" 192.0.2.9 1 2\r\n")
			require.NoError(t, err)
			return conn
		}
		first := m.secure(t, header("192.0.2.1"))
		assert.Equal(t, "192.0.2.1:1", expect[meta.MessageTCPConnect](a).RemoteAddr.String())
		m.secure(t, header("192.0.2.2"))
		assert.Equal(t, "192.0.2.2:1", expect[meta.MessageTCPConnect](a).RemoteAddr.String())
		_, err := io.ReadAll(header("192.0.2.1"))
		assertEnded(t, err)
		assert.EqualValues(t, 1, meta.Stats(a.server).Refused["limit"])
		first.Close()
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
		eventually(t, func() bool { return meta.Stats(a.server).Connections == 1 }, "it has left")
		m.secure(t, header("192.0.2.1"))
		expect[meta.MessageTCPConnect](a)
	})
}
