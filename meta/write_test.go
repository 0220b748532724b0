package meta_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// Messages of all sizes arrive in the order in which they were sent.
func TestWriteOrder(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		sent := random(4 << 20)
		sizes := rand.New(rand.NewPCG(1, 2))
		require.NoError(t, a.h.Send(a.pid, run(func(o *owner) {
			for rest := sent; len(rest) > 0; {
				n := min(len(rest), 1<<sizes.IntN(17))
				if o.SendAlias(id, meta.MessageTCP{Data: rest[:n]}) == nil {
					rest = rest[n:]
				}
			}
		})))
		got := make([]byte, len(sent))
		_, err := io.ReadFull(peer, got)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(sent, got), "bytes are lost or out of order")
	})
}

// countingListener counts the writes to its connections: the records.
type countingListener struct {
	net.Listener
	writes atomic.Int32
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{conn, l}, nil
}

func (c countingConn) Write(b []byte) (int, error) {
	c.l.writes.Add(1)
	return c.Conn.Write(b)
}

// What waits is written together. The listener wraps its connections, so that this is also the test
// of a server whose connections are no *net.TCPConn.
func TestWritesAreCoalesced(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		counting := &countingListener{Listener: listener}
		a := newHost(t).spawn(nil)
		a.listen(meta.TCPServerOptions{CertManager: m.manager, Listener: counting})
		peer := m.dial(t, listener.Addr().String())
		id := expect[meta.MessageTCPConnect](a).ID
		before := counting.writes.Load()
		a.do(func(o *owner) {
			for range 1000 {
				o.SendAlias(id, meta.MessageTCP{Data: make([]byte, 64)})
			}
		})
		_, err = io.ReadFull(peer, make([]byte, 64_000))
		require.NoError(t, err)
		writes := counting.writes.Load() - before
		t.Logf("1000 messages went out in %d writes", writes)
		assert.Less(t, writes, int32(500))
		io.WriteString(peer, "and back")
		assert.Equal(t, "and back", string(expect[meta.MessageTCP](a).Data))
	})
}

// A Call answers when its bytes are with the kernel.
func TestCall(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		for _, size := range []int{0, 5, 100_000} {
			var result any
			var err error
			go io.ReadFull(peer, make([]byte, size))
			a.do(func(o *owner) { result, err = o.CallAlias(id, meta.MessageTCP{Data: make([]byte, size)}, 5) })
			require.NoError(t, err)
			assert.Equal(t, size, result)
		}
		var result any
		a.do(func(o *owner) { result, _ = o.CallAlias(id, "nonsense", 5) })
		assert.Equal(t, gen.ErrUnsupported, result)
	})
}

// A peer that does not read holds back first the writer, then the mailbox, then the sender.
func TestPushBack(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteBuffer: 32 << 10, ConnectionMeta: gen.MetaOptions{MailboxSize: 16}})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		accepted := 0
		eventually(t, func() bool {
			var err error
			a.do(func(o *owner) { err = o.SendAlias(id, meta.MessageTCP{Data: make([]byte, 16<<10)}) })
			if err == nil {
				accepted++
				return false
			}
			return assert.ErrorIs(t, err, gen.ErrMetaMailboxFull)
		}, "the sender is told")
		got := make(chan int64)
		go func() {
			n, _ := io.CopyN(io.Discard, peer, int64(accepted)*16<<10)
			got <- n
		}()
		assert.EqualValues(t, accepted*16<<10, <-got, "nothing that was accepted is lost")
	})
}

// A peer that sends without end and reads nothing does not fill the memory with what is answered to
// it, and gets all of it when it reads.
func TestEchoToPeerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	const buffer = 32 << 10
	stream := random(32 << 20) // more than the kernels hold
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(func(o *owner, message any) bool {
			m, ok := message.(meta.MessageTCP)
			return ok && o.SendAlias(m.ID, m) == nil
		})
		server, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteBuffer: buffer})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		require.NoError(t, peer.SetDeadline(time.Now().Add(time.Minute)))
		go peer.Write(stream)
		eventually(t, func() bool {
			return strings.HasPrefix(a.inspect(server, id.String())["state"], "held back")
		}, "it stops reading")
		held := a.inspect(server, id.String())
		in, err := strconv.Atoi(held["bytes in"])
		require.NoError(t, err)
		// How much of it the kernels have taken since the connection began to wait is their affair.
		assert.Greater(t, in, 16*buffer, "a peer may write a good deal before it reads")
		assert.Less(t, in, len(stream))
		got := make([]byte, len(stream))
		_, err = io.ReadFull(peer, got)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(stream, got))
		eventually(t, func() bool { return a.inspect(id)["state"] == "active" }, "it reads on")
	})
}

// The peer is killed at a random point. Every byte was received by it, or was handed to the kernel,
// or is counted as not written.
func TestEveryByteIsAccountedFor(t *testing.T) {
	// Ergo itself hands to the parent what is sent to a meta process at the very moment of its end:
	// what the owner sent itself, and nothing else.
	strays := func(_ *owner, message any) bool {
		_, own := message.(meta.MessageTCP)
		return own
	}
	stream := random(4 << 20)
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(strays)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteBuffer: 128 << 10})
		points, sizes := rand.New(rand.NewPCG(3, 4)), rand.New(rand.NewPCG(5, 6))
		for round := range 12 {
			peer := m.dial(t, addr)
			// The less the kernels hold, the closer to the point is what the peer has received.
			require.NoError(t, rawTCP(peer).SetReadBuffer(128<<10))
			id := expect[meta.MessageTCPConnect](a).ID
			sender := make(chan uint64, 1)
			require.NoError(t, a.h.Send(a.pid, run(func(o *owner) {
				rest := stream
				for len(rest) > 0 {
					n := min(len(rest), 1+sizes.IntN(100<<(sizes.IntN(11))))
					if o.SendAlias(id, meta.MessageTCP{Data: rest[:n]}) != nil {
						break
					}
					rest = rest[n:]
				}
				sender <- uint64(len(stream) - len(rest))
			})))
			received := make([]byte, points.IntN(len(stream)))
			n, _ := io.ReadFull(peer, received)
			killed := round%2 == 0
			if killed {
				rawTCP(peer).SetLinger(0)
			}
			rawTCP(peer).Close()
			sent := <-sender
			assert.True(t, bytes.Equal(stream[:n], received[:n]), "bytes are lost or out of order")
			disconnect := expect[meta.MessageTCPDisconnect](a)
			var reason *meta.DisconnectError
			require.ErrorAs(t, disconnect.Reason, &reason)
			if killed {
				assert.Equal(t, meta.ErrReset, reason.Reason, "it is a reset whoever hears of it first: %v", reason)
				assert.Error(t, reason.Cause)
			}
			assert.LessOrEqual(t, reason.Accepted, sent)
			assert.LessOrEqual(t, reason.Written, reason.Accepted)
			assert.LessOrEqual(t, uint64(n), reason.Written)
			if reason.Written < reason.Accepted {
				assert.ErrorContains(t, reason, "bytes written)")
			}
		}
	})
}

// What a peer sends that takes nothing, before it has sent anything else, is delivered: the bytes
// that wait for it are not answers.
func TestDeliveredWhilePeerTakesNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		for range 16 << 10 {
			a.send(id, meta.MessageTCP{Data: make([]byte, 1<<10)})
		}
		waiting, unchanged := uint64(0), 0
		eventually(t, func() bool {
			before := waiting
			if waiting = meta.Connections(a.server)[0].BytesWaiting; waiting > 0 && waiting == before {
				unchanged++
			} else {
				unchanged = 0
			}
			return unchanged > 20
		}, "it waits for its peer")
		for _, text := range []string{"a", "b", "c"} {
			_, err := io.WriteString(peer, text)
			require.NoError(t, err)
			assert.Equal(t, text, string(expect[meta.MessageTCP](a).Data))
		}
	})
}
