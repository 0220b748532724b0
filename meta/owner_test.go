package meta_test

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// A worker that is started again under the same name gets nothing of a connection whose Connect
// another has got, and that connection ends.
func TestConnectionEndsWithItsOwner(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		for _, speaks := range []bool{true, false} {
			h := newHost(t)
			parent, worker := h.spawn(nil), h.spawnNamed("worker", nil)
			_, addr := parent.listen(meta.TCPServerOptions{CertManager: m.manager, ProcessPool: []gen.Atom{"worker"}, Node: h.Node})
			peer := m.dial(t, addr)
			expect[meta.MessageTCPConnect](worker)
			require.NoError(t, h.Kill(worker.pid))
			eventually(t, func() bool { _, err := h.ProcessState(worker.pid); return err != nil }, "it is gone")
			heir := h.spawnNamed("worker", nil)
			if speaks {
				io.WriteString(peer, "for the first worker alone")
			}
			_, err := io.ReadAll(peer)
			assertEnded(t, err)
			heir.quiet()
			m.dial(t, addr)
			expect[meta.MessageTCPConnect](heir)
		}
	})
}

// A connection goes from owner to owner while its peer sends and gets answers. Each message reaches
// one of them, in order, after its Connect, and nothing comes after the word that it is another's.
func TestOwnerChangesUnderTraffic(t *testing.T) {
	const owners, lines, each, window = 4, 2000, 10, 30
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		var mu sync.Mutex // guards all below
		var pids []gen.PID
		got := make([][]int, owners)
		owns := make([]bool, owners)
		var all []*actor
		for i := range owners {
			all = append(all, h.spawn(func(o *owner, message any) bool {
				mu.Lock()
				defer mu.Unlock()
				switch m := message.(type) {
				case meta.MessageTCPConnect:
					assert.False(t, owns[i], "it is told once")
					owns[i] = true
				case meta.MessageTCP:
					assert.True(t, owns[i], "it was told before")
					n, err := strconv.Atoi(string(m.Data))
					assert.NoError(t, err)
					got[i] = append(got[i], n)
					if n%each == 0 {
						o.SendAlias(m.ID, meta.MessageTCPOwner{PID: pids[(i+1)%owners]})
					}
					o.SendAlias(m.ID, meta.MessageTCP{Data: append(m.Data, '\n')})
				case meta.MessageTCPOwner:
					assert.True(t, owns[i])
					owns[i] = false
					assert.NotEqual(t, o.PID(), m.PID)
				default:
					return false
				}
				return true
			}))
			pids = append(pids, all[i].pid)
		}
		_, addr := all[0].listen(meta.TCPServerOptions{CertManager: m.manager, Split: bufio.ScanLines, Node: h.Node})
		peer := m.dial(t, addr)
		inFlight := make(chan struct{}, window)
		go func() {
			for n := range lines {
				inFlight <- struct{}{}
				fmt.Fprintln(peer, n)
			}
		}()
		answers := bufio.NewScanner(peer)
		seen := make([]bool, lines)
		for range lines {
			require.True(t, answers.Scan(), "%v", answers.Err())
			<-inFlight
			n, err := strconv.Atoi(answers.Text())
			require.NoError(t, err)
			require.False(t, seen[n], "%d was answered twice", n)
			seen[n] = true
		}
		peer.Close()
		ends := 0
		eventually(t, func() bool {
			for _, a := range all {
				select {
				case message := <-a.mail:
					assert.IsType(t, meta.MessageTCPDisconnect{}, message)
					ends++
				default:
				}
			}
			return ends > 0
		}, "one of them hears of the end")
		for _, a := range all {
			a.quiet()
		}
		mu.Lock()
		defer mu.Unlock()
		total := 0
		for i := range got {
			assert.IsIncreasing(t, got[i], "in order")
			assert.NotEmpty(t, got[i])
			total += len(got[i])
		}
		assert.Equal(t, lines, total)
	})
}

// At a passive connection nothing is on its way: the new owner goes on exactly where the old one
// has stopped. The end is its own.
func TestOwnerChangesAtPassive(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		first, second := h.spawnNamed("first", nil), h.spawn(nil)
		_, addr := h.spawn(nil).listen(meta.TCPServerOptions{CertManager: m.manager, Split: bufio.ScanLines, Active: 1, Node: h.Node, ProcessPool: []gen.Atom{"first"}})
		peer := m.dial(t, addr)
		connect := expect[meta.MessageTCPConnect](first)
		id := connect.ID
		io.WriteString(peer, "one\ntwo\nthree\n")
		assert.Equal(t, "one", string(expect[meta.MessageTCP](first).Data))
		expect[meta.MessageTCPPassive](first)
		first.send(id, meta.MessageTCPOwner{PID: second.pid})
		assert.Equal(t, meta.MessageTCPOwner{PID: second.pid, ID: id}, expect[meta.MessageTCPOwner](first))
		again := expect[meta.MessageTCPConnect](second)
		assert.Equal(t, m.tls(), again.TLS != nil)
		again.TLS = connect.TLS // a copy, with functions
		assert.Equal(t, connect, again)
		second.quiet()
		first.send(id, meta.MessageTCPOwner{PID: h.spawn(nil).pid})
		eventually(t, h.log.contains("ignored: it is neither the owner nor the parent"), "it was given away")
		second.send(id, meta.MessageTCPActive{N: 2})
		for _, text := range []string{"two", "three"} {
			assert.Equal(t, text, string(expect[meta.MessageTCP](second).Data))
		}
		expect[meta.MessageTCPPassive](second)
		assert.Equal(t, second.pid.String(), first.inspect(id)["process"])
		second.send(id, meta.MessageTCPActive{N: 1})
		peer.Close()
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](second).Reason, meta.ErrClosedByPeer)
		first.quiet()
	})
}

// With the option Node the new owner counts: the end of the old one is none of the connection, its
// own is. A process that is gone is no owner.
func TestConnectionEndsWithItsNewOwner(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		parent, worker, heir := h.spawn(nil), h.spawnNamed("worker", nil), h.spawn(echo)
		_, addr := parent.listen(meta.TCPServerOptions{CertManager: m.manager, ProcessPool: []gen.Atom{"worker"}, Node: h.Node})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](worker).ID
		gone := h.spawn(nil)
		require.NoError(t, h.Kill(gone.pid))
		eventually(t, func() bool { _, err := h.ProcessState(gone.pid); return err != nil }, "it is gone")
		for _, nobody := range []gen.PID{gone.pid, {}} {
			parent.send(id, meta.MessageTCPOwner{PID: nobody})
		}
		eventually(t, h.log.contains("ignored"), "the log says so")
		heir.send(id, meta.MessageTCPOwner{PID: heir.pid})
		eventually(t, h.log.contains("ignored: it is neither"), "it is not the owner")
		parent.send(id, meta.MessageTCPOwner{PID: heir.pid})
		expect[meta.MessageTCPOwner](worker)
		expect[meta.MessageTCPConnect](heir)
		require.NoError(t, h.Kill(worker.pid))
		eventually(t, func() bool { _, err := h.ProcessState(worker.pid); return err != nil }, "it is gone")
		talk(t, peer)
		require.NoError(t, h.Kill(heir.pid))
		_, err := io.ReadAll(peer)
		assertEnded(t, err)
	})
}

// The owner of a connection with Reconnect is that of the connections that come, too.
func TestOwnerOfReconnecting(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		h := newHost(t)
		first, second, third := h.spawn(nil), h.spawn(nil), h.spawn(nil)
		id := first.connect(m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond}))
		expect[meta.MessageTCPConnect](first)
		second.send(id, meta.MessageTCPOwner{PID: second.pid})
		eventually(t, h.log.contains("ignored: it is neither"), "it is not the owner")
		first.send(id, meta.MessageTCPOwner{PID: second.pid})
		expect[meta.MessageTCPOwner](first)
		assert.Equal(t, id, expect[meta.MessageTCPConnect](second).ID)
		server.stop()
		expect[meta.MessageTCPDisconnect](second)
		second.send(id, meta.MessageTCPOwner{PID: third.pid}) // while it is down
		until(second, always[meta.MessageTCPOwner])
		server.start()
		until(third, always[meta.MessageTCPConnect])
		third.send(id, meta.MessageTCP{Data: []byte("hello\n")})
		assert.Equal(t, "hello", string(expect[meta.MessageTCP](third).Data))
		third.send(id, meta.MessageTCPClose{})
		until(third, func(m meta.MessageTCPDisconnect) bool { return m.Retry.IsZero() })
		first.quiet()
	})
}

// A connection whose new owner can't be told of it ends.
func TestNewOwnerWithoutRoom(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		busy := make(chan struct{})
		first, full := h.spawn(nil), h.spawn(nil, gen.ProcessOptions{MailboxSize: 1})
		_, addr := first.listen(meta.TCPServerOptions{CertManager: m.manager})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](first).ID
		require.NoError(t, h.Send(full.pid, run(func(*owner) { <-busy })))
		eventually(t, func() bool { return h.Send(full.pid, run(func(*owner) {})) == nil }, "it is busy")
		first.send(id, meta.MessageTCPOwner{PID: full.pid})
		expect[meta.MessageTCPOwner](first)
		_, err := io.ReadAll(peer)
		assertEnded(t, err)
		close(busy)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](full).Reason, meta.ErrOwnerGone)
		first.quiet()
	})
}

// A connection of an ActorServer stays with its actor.
func TestActorKeepsItsConnection(t *testing.T) {
	h, _, server, _ := actorServer(t, modes()[0], nil)
	conn := modes()[0].dial(t, meta.Stats(server).Listen)
	assert.Equal(t, "1\n", line(t, conn, "hello"))
	other := h.spawn(nil)
	other.send(meta.Connections(server)[0].ID, meta.MessageTCPOwner{PID: other.pid})
	eventually(t, h.log.contains("belongs to its actor"), "the log says so")
	assert.Equal(t, "2\n", line(t, conn, "hello"))
	other.quiet()
}

// slowNode takes long to tell of the worker, the first time, and tells when it does.
type slowNode struct {
	gen.Node
	later *atomic.Bool
	looks chan struct{}
}

func (n slowNode) ProcessInfo(pid gen.PID) (gen.ProcessInfo, error) {
	info, err := n.Node.ProcessInfo(pid)
	if info.Name == "worker" && n.later.CompareAndSwap(false, true) {
		close(n.looks)
		time.Sleep(20 * time.Millisecond)
	}
	return info, err
}

// A connection with Reconnect is passed on by its owner and its parent, also before the first
// connection and between two. With Node the owner is the process that has the name, and nobody else
// can take a later connection.
func TestOwnerOfReconnectingWithName(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		h := newHost(t)
		node := slowNode{h.Node, &atomic.Bool{}, make(chan struct{})}
		parent, worker, thief, heir := h.spawn(nil), h.spawnNamed("worker", nil), h.spawn(nil), h.spawn(nil)
		options := m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond})
		options.Node, options.Process = node, "worker"
		id := parent.connect(options)
		<-node.looks // it looks for its owner
		parent.send(id, meta.MessageTCPOwner{PID: worker.pid})
		steal := func() { thief.send(id, meta.MessageTCPOwner{PID: thief.pid}) }
		steal()
		expect[meta.MessageTCPConnect](worker)
		steal()
		server.stop()
		until(worker, always[meta.MessageTCPDisconnect])
		steal()
		server.start()
		until(worker, always[meta.MessageTCPConnect])
		worker.send(id, meta.MessageTCPOwner{PID: heir.pid})
		until(worker, always[meta.MessageTCPOwner])
		expect[meta.MessageTCPConnect](heir)
		server.stop()
		until(heir, always[meta.MessageTCPDisconnect])
		worker.send(id, meta.MessageTCPOwner{PID: worker.pid})
		parent.send(id, meta.MessageTCPOwner{PID: parent.pid})
		until(heir, always[meta.MessageTCPOwner])
		server.start()
		until(parent, always[meta.MessageTCPConnect])
		worker.quiet()
		heir.quiet()
		thief.quiet()
	})
}
