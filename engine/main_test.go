package ergo_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ergo.services/ergo"
	"ergo.services/ergo/gen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startNode starts a node without a log and stops it at the end of the test.
func startNode(t testing.TB) gen.Node {
	t.Helper()
	return startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}}})
}

func startNodeWith(t testing.TB, options gen.NodeOptions) gen.Node {
	t.Helper()
	node, err := ergo.StartNode("test@localhost", options)
	require.NoError(t, err)
	t.Cleanup(node.Stop)
	return node
}

// spawn starts an actor and returns its process too, for use from the test.
func spawn[A gen.ProcessBehavior](t testing.TB, node gen.Node, actor A) (A, gen.PID) {
	t.Helper()
	pid, err := node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{})
	require.NoError(t, err)
	return actor, pid
}
