package meta_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// sayAll writes and ends its side, as nc -N and openssl s_client with their input from a file do.
func sayAll(t *testing.T, peer net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(peer, text)
	require.NoError(t, err)
	require.NoError(t, peer.(interface{ CloseWrite() error }).CloseWrite())
	if raw := rawTCP(peer); net.Conn(raw) != peer {
		require.NoError(t, raw.CloseWrite())
	}
}

// A client that says all it has and ends its side gets the answers to all of it.
func TestAnswersAfterEOF(t *testing.T) {
	t.Parallel()
	const clients, lines = 20, 50
	for name, split := range map[string]bufio.SplitFunc{"lines": bufio.ScanLines, "bytes": nil} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(func(o *owner, message any) bool {
					m, ok := message.(meta.MessageTCP)
					if !ok {
						return false
					}
					for range strings.Count(string(m.Data), "line") {
						o.SendAlias(m.ID, meta.MessageTCP{Data: []byte("answer\n")})
					}
					return true
				})
				_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Split: split})
				for range clients {
					peer := m.dial(t, addr)
					sayAll(t, peer, strings.Repeat("line\n", lines))
					got, err := io.ReadAll(peer)
					require.NoError(t, err)
					require.Equal(t, lines, strings.Count(string(got), "answer\n"))
					expect[meta.MessageTCPConnect](a)
					assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
				}
			})
		})
	}
}

// With HalfClose the owner takes its time, and ends the connection itself. Both sides can be the
// one that ends first.
func TestHalfClose(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, HalfClose: time.Hour})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		sayAll(t, peer, "question")
		assert.Equal(t, "question", string(expect[meta.MessageTCP](a).Data))
		assert.Equal(t, id, expect[meta.MessageTCPEOF](a).ID)
		for range 3 {
			a.send(id, meta.MessageTCP{Data: []byte("part ")})
			got := make([]byte, 5)
			_, err := io.ReadFull(peer, got)
			require.NoError(t, err)
		}
		a.send(id, meta.MessageTCP{Data: []byte("last")})
		a.send(id, meta.MessageTCPClose{})
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assert.Equal(t, "last", string(got))
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
	})
}

// An owner that forgets it does not keep it open.
func TestHalfCloseIsBounded(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, HalfClose: 50 * time.Millisecond})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		sayAll(t, peer, "")
		expect[meta.MessageTCPEOF](a)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
		_, err := io.ReadAll(peer)
		assert.NoError(t, err)
	})
}

// The same on an outgoing connection, whose server ends its side first, over unix sockets too.
func TestHalfCloseOfOutgoing(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		dir, err := os.MkdirTemp("", "unix")
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		h := newHost(t)
		server, client := h.spawn(nil), h.spawn(nil)
		server.listen(meta.TCPServerOptions{CertManager: m.manager, UnixPath: dir + "/socket"})
		options := meta.TCPConnectionOptions{UnixPath: dir + "/socket", CertManager: m.manager, HalfClose: time.Hour}
		if m.tls() {
			options.ServerName = "localhost"
		}
		id := client.connect(options)
		near, far := expect[meta.MessageTCPConnect](client).ID, expect[meta.MessageTCPConnect](server).ID
		assert.Equal(t, id, near)
		server.send(far, meta.MessageTCP{Data: []byte("question")})
		server.send(far, meta.MessageTCPCloseWrite{})
		assert.Equal(t, "question", string(expect[meta.MessageTCP](client).Data))
		expect[meta.MessageTCPEOF](client)
		client.send(id, meta.MessageTCP{Data: []byte("answer")})
		assert.Equal(t, "answer", string(expect[meta.MessageTCP](server).Data))
		client.send(id, meta.MessageTCPClose{})
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](server).Reason, meta.ErrClosedByPeer)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](client).Reason, meta.ErrTerminated)
	})
}

// A connection that was upgraded is as any other.
func TestHalfCloseAfterStartTLS(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		options := startTLSServer(m)
		options.HalfClose = time.Hour
		_, addr := a.listen(options)
		conn := dialTCP(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		exchange(t, a, conn, "STARTTLS")
		a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
		_, err := io.ReadFull(conn, make([]byte, len("go ahead\n")))
		require.NoError(t, err)
		peer := m.secure(t, conn)
		expect[meta.MessageTCPSecured](a)
		a.send(id, meta.MessageTCPActive{N: 1})
		sayAll(t, peer, "question")
		assert.Equal(t, "question", string(expect[meta.MessageTCP](a).Data))
		expect[meta.MessageTCPPassive](a)
		a.send(id, meta.MessageTCPActive{N: 1})
		expect[meta.MessageTCPEOF](a)
		a.send(id, meta.MessageTCP{Data: []byte("answer")})
		a.send(id, meta.MessageTCPClose{})
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assert.Equal(t, "answer", string(got))
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
	})
}

// A keep-alive message is written to an idle peer, between messages and not into them, and keeps
// nobody from being idle.
func TestKeepAliveMessage(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{
			CertManager: m.manager, KeepAliveMessage: []byte("ping\n"), KeepAliveMessagePeriod: 20 * time.Millisecond, IdleTimeout: 2 * time.Second,
		})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		got := bufio.NewReader(peer)
		line := func() string {
			line, err := got.ReadString('\n')
			require.NoError(t, err)
			return line
		}
		assert.Equal(t, "ping\n", line())
		a.do(func(o *owner) {
			for range 1000 {
				o.SendAlias(id, meta.MessageTCP{Data: []byte("half ")})
				o.SendAlias(id, meta.MessageTCP{Data: []byte("a line\n")})
			}
		})
		for said := 0; said < 1000; {
			if l := line(); l != "ping\n" {
				require.Equal(t, "half a line\n", l)
				said++
			}
		}
		assert.Equal(t, "ping\n", line())
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrIdle)
	})
}

// A connection ends for its age after its owner was told.
func TestMaxLifetime(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, MaxLifetime: 100 * time.Millisecond, CloseTimeout: 50 * time.Millisecond})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		draining := expect[meta.MessageTCPDraining](a)
		assert.Equal(t, id, draining.ID)
		assert.False(t, draining.Deadline.IsZero())
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrDrained)
		_, err := io.ReadAll(peer)
		assert.NoError(t, err)
	})
}

// MessageTCPCloseWrite sends close_notify before FIN also if the kernel has no room for it after
// the last data.
func TestCloseWriteToSlowPeer(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		server, client := h.spawn(nil), h.spawn(nil)
		listener := newListener(t)
		server.listen(meta.TCPServerOptions{CertManager: m.manager, Listener: connListener{listener, func(c *net.TCPConn) net.Conn {
			c.SetWriteBuffer(1) // the least that the system has
			if m.name == "wrapped" {
				return wrappedConn{c}
			}
			return c
		}}})
		options := meta.TCPConnectionOptions{Addrs: []string{listener.Addr().String()}, CertManager: m.manager, HalfClose: time.Hour}
		if m.tls() {
			options.ServerName = "localhost"
		}
		for i := range 20 {
			id := client.connect(options)
			expect[meta.MessageTCPConnect](client)
			far := expect[meta.MessageTCPConnect](server).ID
			server.send(far, meta.MessageTCP{Data: make([]byte, 100_000+997*i)})
			server.send(far, meta.MessageTCPCloseWrite{})
			for message := any(meta.MessageTCP{}); message != any(meta.MessageTCPEOF{ID: id}); message = <-client.mail {
				require.IsType(t, meta.MessageTCP{}, message)
			}
			client.send(id, meta.MessageTCPClose{})
			assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](client).Reason, meta.ErrTerminated)
			assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](server).Reason, meta.ErrClosedByPeer)
		}
	})
}

// The bytes of a keep-alive message are not counted as those of the owner, but as traffic.
func TestKeepAliveMessageIsNotAccepted(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, KeepAliveMessage: []byte("ping\n"), KeepAliveMessagePeriod: 5 * time.Millisecond})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		_, err := io.ReadFull(peer, make([]byte, len("ping\nping\n")))
		require.NoError(t, err)
		a.send(id, meta.MessageTCP{Data: []byte("hello\n")})
		_, err = io.ReadFull(peer, make([]byte, len("hello\nping\n"))) // there may be more before it
		require.NoError(t, err)
		a.send(id, meta.MessageTCPClose{})
		var reason *meta.DisconnectError
		require.ErrorAs(t, expect[meta.MessageTCPDisconnect](a).Reason, &reason)
		assert.EqualValues(t, len("hello\n"), reason.Accepted)
		assert.EqualValues(t, len("hello\n"), reason.Written)
		assert.GreaterOrEqual(t, meta.Stats(a.server).BytesOut, uint64(len("ping\nping\nhello\n")))
	})
}
