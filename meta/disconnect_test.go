package meta_test

import (
	"bufio"
	"io"
	"strings"
	"testing"

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
