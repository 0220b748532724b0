package meta_test

import (
	"io"
	"testing"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// A worker that is started again under the same name gets nothing of a connection whose Connect
// another has got, and that connection ends.
func TestConnectionEndsWithItsOwner(t *testing.T) {
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
