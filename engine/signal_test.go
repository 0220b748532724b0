//go:build unix

package ergo_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"
)

func TestSetCTRLC(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			node := startNode(t)
			a, _ := spawn(t, node, newActor())
			node.SetCTRLC(true)
			node.SetCTRLC(true)
			node.SetCTRLC(false)
			node.SetCTRLC(true)
			require.NoError(t, syscall.Kill(syscall.Getpid(), signal))
			assert.Equal(t, gen.TerminateReasonShutdown, receive(t, a.reasons))
			node.Wait()
		})
	}
}

// The wait for a signal ends with the node: goleak would see it.
func TestSetCTRLCWithoutSignal(t *testing.T) {
	node := startNode(t)
	node.SetCTRLC(true)
	node.Stop()
}
