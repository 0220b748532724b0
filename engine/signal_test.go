//go:build unix

package ergo_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

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

// A program whose node cannot stop is ended by the second signal. It takes a
// program of its own to see that: this test, run again with its environment.
func TestSecondSignal(t *testing.T) {
	const child = "ERGO_TEST_SECOND_SIGNAL"
	if os.Getenv(child) != "" {
		node := startNodeWith(t, gen.NodeOptions{})
		a, pid := spawn(t, node, newActor())
		node.SetCTRLC(true)
		require.NoError(t, node.Send(pid, task(func() error {
			a.Log().Info("stuck")
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})))
		node.Wait()
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	program := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSecondSignal$")
	program.Env = append(os.Environ(), child+"=1")
	stdin, err := program.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := program.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, program.Start())
	lines := bufio.NewScanner(stdout)
	for _, word := range []string{"stuck", "stopping the node"} {
		for lines.Scan() && !strings.Contains(lines.Text(), word) {
		}
		require.Contains(t, lines.Text(), word)
		require.NoError(t, program.Process.Signal(syscall.SIGINT))
	}
	var exit *exec.ExitError
	require.True(t, errors.As(program.Wait(), &exit))
	assert.Equal(t, syscall.SIGINT, exit.Sys().(syscall.WaitStatus).Signal())
}
