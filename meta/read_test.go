package meta_test

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// random gives reproducible bytes.
func random(n int) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{1})
	source.Read(b)
	return b
}

// The messages of a stream are its bytes, each with memory of its own and no more.
func TestMessagesAreExact(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, BufferSize: 1000})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		sent := random(100_000)
		go peer.Write(sent)
		var got []byte
		for len(got) < len(sent) {
			data := expect[meta.MessageTCP](a).Data
			assert.LessOrEqual(t, len(data), 1000)
			got = append(got, data...)
			clear(data[:cap(data)]) // it is the receiver's, and nobody else's
		}
		assert.True(t, bytes.Equal(sent, got))
	})
}

// A peer that waits for each answer gets it, however its messages fill the buffer and arrive:
// nothing that is there waits for what comes next.
func TestRequestsAreNotHeldBack(t *testing.T) {
	frames, err := meta.FixedLength(8)
	require.NoError(t, err)
	for name, options := range map[string]meta.TCPServerOptions{"bytes": {BufferSize: 512}, "frames": {Split: frames}} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(echo)
				options := options
				options.CertManager = m.manager
				_, addr := a.listen(options)
				peer := m.dial(t, addr)
				sizes := rand.New(rand.NewPCG(1, 2))
				sent, got := random(20_000), make([]byte, 20_000)
				for range 600 {
					size := 8 // of some the connection has got used to
					switch sizes.IntN(10) {
					case 0:
						size = 512
					case 1:
						size = 8 * (1 + sizes.IntN(2500))
					}
					cut := size
					if sizes.IntN(4) == 0 {
						cut = 1 + sizes.IntN(size)
					}
					_, err := peer.Write(sent[:cut])
					require.NoError(t, err)
					if cut < size {
						_, err = peer.Write(sent[cut:size])
						require.NoError(t, err)
					}
					_, err = io.ReadFull(peer, got[:size])
					require.NoError(t, err, "%d bytes, the first %d of them alone", size, cut)
					require.True(t, bytes.Equal(sent[:size], got[:size]))
				}
			})
		})
	}
}

// Every buffer comes from the pool, and returns to it with its full length when it is sent back to
// be recycled, small or large.
func TestBufferPool(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		const size, rounds = 16 << 10, 400
		var made atomic.Int32
		pool := &sync.Pool{New: func() any {
			made.Add(1)
			return make([]byte, size)
		}}
		a := newHost(t).spawn(func(o *owner, message any) bool {
			m, ok := message.(meta.MessageTCP)
			if ok {
				m.Recycle = true
				o.SendAlias(m.ID, m)
			}
			return ok
		})
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, BufferPool: pool})
		peer := m.dial(t, addr)
		sent, got := random(6000), make([]byte, 6000)
		for i := range rounds {
			n := []int{5, 6000}[i%2] // one is copied into a record, the other is written where it lies
			_, err := peer.Write(sent[:n])
			require.NoError(t, err)
			_, err = io.ReadFull(peer, got[:n])
			require.NoError(t, err)
			require.True(t, bytes.Equal(sent[:n], got[:n]))
		}
		// The race detector lets a pool drop one in four, and a collection drops all.
		assert.Less(t, made.Load(), int32(rounds*2/3))
		for range made.Load() {
			assert.Len(t, pool.Get(), size)
		}
	})
}

// What did not come from the pool does not go there: it may be sent to others too, and must not be
// read into.
func TestBufferPoolTakesOnlyItsOwn(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		const size = 16 << 10
		pool := &sync.Pool{New: func() any { return make([]byte, size) }}
		greeting, page := []byte("220 hello\r\n"), random(4*size)
		a := newHost(t).spawn(func(o *owner, message any) bool {
			if m, ok := message.(meta.MessageTCPConnect); ok { // before anything was read
				o.SendAlias(m.ID, meta.MessageTCP{Data: greeting})
				o.SendAlias(m.ID, meta.MessageTCP{Data: page})
			}
			return false
		})
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, BufferPool: pool})
		want := append(bytes.Clone(greeting), page...)
		for range 10 {
			peer := m.dial(t, addr)
			got := make([]byte, len(want))
			_, err := io.ReadFull(peer, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "what another peer has sent")
			expect[meta.MessageTCPConnect](a)
			_, err = io.WriteString(peer, "a secret of this peer")
			require.NoError(t, err)
			assert.Equal(t, size, cap(expect[meta.MessageTCP](a).Data))
			peer.Close()
			expect[meta.MessageTCPDisconnect](a)
		}
	})
}

// One message that is sent to several connections reaches all of them as it was: its buffer is read
// into again only if the owner says so.
func TestBufferPoolOfChat(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		const size, clients, rounds = 4 << 10, 4, 50
		pool := &sync.Pool{New: func() any { return make([]byte, size) }}
		var room []gen.Alias
		a := newHost(t).spawn(func(o *owner, message any) bool {
			switch m := message.(type) {
			case meta.MessageTCPConnect:
				room = append(room, m.ID)
			case meta.MessageTCP:
				for _, id := range room {
					o.SendAlias(id, m)
				}
				return true
			}
			return false
		})
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, BufferPool: pool})
		var peers []net.Conn
		for range clients {
			peers = append(peers, m.dial(t, addr))
			expect[meta.MessageTCPConnect](a)
		}
		// Each client says its own letter, and hears whole messages of one letter, its own and
		// those of the others.
		var group sync.WaitGroup
		for i, peer := range peers {
			group.Go(func() {
				for range rounds {
					peer.Write(bytes.Repeat([]byte{'a' + byte(i)}, size))
				}
			})
			group.Go(func() {
				heard := map[byte]int{}
				got := make([]byte, clients*rounds*size)
				_, err := io.ReadFull(peer, got)
				assert.NoError(t, err)
				for _, b := range got {
					heard[b]++
				}
				for i := range clients {
					assert.Equal(t, rounds*size, heard['a'+byte(i)], "bytes of one client, as another has got them")
				}
			})
		}
		group.Wait()
	})
}

func TestSplit(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Split: bufio.ScanLines, MaxFrame: 20_000})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		long := strings.Repeat("long", 4_900)
		for _, part := range []string{"one\ntw", "o\n", "\nthree\r", "\n" + long + "\n", "the la", "st"} {
			_, err := io.WriteString(peer, part)
			require.NoError(t, err)
		}
		peer.Close()
		for _, want := range []string{"one", "two", "", "three", long, "the last"} {
			assert.Equal(t, want, string(expect[meta.MessageTCP](a).Data))
		}
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
	})
}

// A stream that is cut off delivers its whole frames and not the piece of the last.
func TestSplitOfCutStream(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Split: bufio.ScanLines})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		io.WriteString(peer, "whole\nDELETE /a")
		rawTCP(peer).Close()
		assert.Equal(t, "whole", string(expect[meta.MessageTCP](a).Data))
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTruncated)
	})
}

// Frames that end where the buffer does are followed by others.
func TestSplitAtEndOfBuffer(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		split, err := meta.FixedLength(2)
		require.NoError(t, err)
		seen := atomic.Int32{}
		a := newHost(t).spawn(func(_ *owner, message any) bool {
			_, ok := message.(meta.MessageTCP)
			if ok {
				seen.Add(1)
			}
			return ok
		})
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Split: split})
		peer := m.dial(t, addr)
		const size = 64 << 10 // several buffers
		_, err = peer.Write(make([]byte, size))
		require.NoError(t, err)
		eventually(t, func() bool { return seen.Load() == size/2 }, "all of them come")
	})
}

// With Active a connection delivers what it was allowed, says so once, and reads no further.
func TestActive(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Split: bufio.ScanLines, Active: 3})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		for i := range 10 {
			io.WriteString(peer, string(rune('0'+i))+"\n")
		}
		next := 0
		messages := func(n int) {
			t.Helper()
			for range n {
				assert.Equal(t, string(rune('0'+next)), string(expect[meta.MessageTCP](a).Data))
				next++
			}
		}
		messages(3)
		assert.Equal(t, id, expect[meta.MessageTCPPassive](a).ID)
		assert.Equal(t, "passive", a.inspect(id)["state"])
		a.quiet()
		a.send(id, meta.MessageTCPActive{N: 2})
		messages(2)
		expect[meta.MessageTCPPassive](a)
		a.send(id, meta.MessageTCPActive{N: 0}) // ignored
		a.quiet()
		a.send(id, meta.MessageTCPActive{N: 100})
		messages(5)
		assert.Equal(t, "95", a.inspect(id)["messages allowed"])
		peer.Close()
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
	})
}

// An actor that sleeps holds its peer back: TCP's window closes, and no more is read ahead than one
// buffer with frames.
func TestActiveHoldsPeerBack(t *testing.T) {
	t.Parallel()
	split, err := meta.FixedLength(1 << 10)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		options meta.TCPServerOptions
		ahead   int
	}{
		"bytes":  {meta.TCPServerOptions{Active: 1}, 0},
		"frames": {meta.TCPServerOptions{Active: 100, Split: split}, 16 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(nil)
				options := test.options
				options.CertManager = m.manager
				_, addr := a.listen(options)
				peer := m.dial(t, addr)
				id := expect[meta.MessageTCPConnect](a).ID
				const size = 16 << 20 // more than the kernels at both ends take
				wrote := make(chan error, 1)
				go func() {
					_, err := peer.Write(make([]byte, size))
					wrote <- err
				}()
				for got := 0; ; a.send(id, meta.MessageTCPActive{N: options.Active}) {
					for range options.Active {
						if got < size {
							got += len(expect[meta.MessageTCP](a).Data)
						}
					}
					if got == size {
						break
					}
					expect[meta.MessageTCPPassive](a)
					read, err := strconv.Atoi(a.inspect(id)["bytes in"])
					require.NoError(t, err)
					require.LessOrEqual(t, read, got+test.ahead, "it reads on")
				}
				require.NoError(t, <-wrote)
			})
		})
	}
}

// The credit reaches a connection also while it is busy delivering.
func TestActiveRace(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		split, err := meta.FixedLength(8)
		require.NoError(t, err)
		const n = 20_000
		seen := 0
		done := make(chan struct{})
		a := newHost(t).spawn(func(o *owner, message any) bool {
			switch m := message.(type) {
			case meta.MessageTCP:
				if seen++; seen%3 == 0 {
					o.SendAlias(m.ID, meta.MessageTCPActive{N: 3})
				}
				if seen == n {
					close(done)
				}
			case meta.MessageTCPPassive:
			default:
				return false
			}
			return true
		}, gen.ProcessOptions{})
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Split: split, Active: 3})
		peer := m.dial(t, addr)
		go peer.Write(make([]byte, 8*n))
		expect[meta.MessageTCPConnect](a)
		<-done
	})
}
