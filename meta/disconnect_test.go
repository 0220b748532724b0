package meta_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// A worker whose mailbox is full loses the connection, and hears of that when it has room again.
func TestDisconnectWaitsForRoom(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		parent := h.spawn(nil)
		busy := make(chan struct{})
		worker := h.spawnNamed("worker", func(_ *owner, message any) bool {
			if _, ok := message.(meta.MessageTCP); ok {
				<-busy
			}
			return false
		}, gen.ProcessOptions{MailboxSize: 3})
		server, addr := parent.listen(meta.TCPServerOptions{
			CertManager: m.manager, Split: bufio.ScanLines, ProcessPool: []gen.Atom{"worker"}, MaxConnections: 1,
		})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](worker).ID
		_, err := io.WriteString(peer, strings.Repeat("line\n", 100))
		require.NoError(t, err)
		_, err = io.ReadAll(peer)
		assertEnded(t, err)
		eventually(t, func() bool { return parent.inspect(server)["connections"] == "0" }, "its slot is free")

		close(busy)
		for {
			message := <-worker.mail
			if disconnect, ok := message.(meta.MessageTCPDisconnect); ok {
				assert.Equal(t, id, disconnect.ID)
				assert.ErrorIs(t, disconnect.Reason, meta.ErrOwnerGone)
				assert.ErrorIs(t, disconnect.Reason, gen.ErrProcessMailboxFull)
				break
			}
			require.IsType(t, meta.MessageTCP{}, message)
		}
		worker.quiet()
		m.dial(t, addr)
		expect[meta.MessageTCPConnect](worker)
	})
}

// A Split or Route that panics ends the one connection that it panicked for.
func TestPanicEndsOneConnection(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		server, addr := a.listen(meta.TCPServerOptions{
			CertManager: m.manager,
			Split: func(data []byte, atEOF bool) (int, []byte, error) {
				if strings.HasPrefix(string(data), "boom") {
					panic("in Split")
				}
				return len(data), data, nil
			},
			Route: func(p meta.Peer) gen.Atom {
				if strings.HasPrefix(p.Addr.String(), "127.0.0.2:") {
					panic("in Route")
				}
				return ""
			},
		})
		healthy := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		sick := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		_, err := io.WriteString(sick, "boom")
		require.NoError(t, err)
		disconnect := expect[meta.MessageTCPDisconnect](a)
		assert.Equal(t, id, disconnect.ID)
		assert.ErrorIs(t, disconnect.Reason, meta.ErrFraming)
		assert.ErrorContains(t, disconnect.Reason, "Split panicked: in Split")
		_, err = io.ReadAll(sick)
		assert.NoError(t, err, "the end is close_notify, and no reset")

		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		lost, err := dialer.Dial("tcp", addr)
		if err != nil {
			t.Skipf("this system has no 127.0.0.2: %s", err)
		}
		defer lost.Close()
		require.NoError(t, lost.SetDeadline(time.Now().Add(testTimeout)))
		_, err = io.ReadAll(m.secure(t, lost))
		assert.NoError(t, err)
		eventually(t, func() bool {
			inspect := a.inspect(server)
			return inspect["connections"] == "1" && inspect["connections establishing"] == "0"
		}, "its slot is free")
		assert.Equal(t, "1", a.inspect(server)["refused"])
		eventually(t, a.h.log.contains("Route panicked: in Route"), "it is logged")
		eventually(t, a.h.log.contains("disconnect_test.go"), "the stack says where")
		talk(t, healthy)
		a.quiet()
	})
}
