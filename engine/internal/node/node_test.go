package node

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":              "",
		"plain ü\ttab":  "plain ü\ttab",
		"a\nb\r":        `a\nb\r`,
		"\x1b[31m\x7f":  `\x1b[31m\x7f`,
		`back\slash"`:   `back\slash"`,
		"broken \xff\n": "broken \xff" + `\n`,
	} {
		assert.Equal(t, want, string(oneLine(in)))
	}
}

func TestInheritLevel(t *testing.T) {
	for level, want := range map[gen.LogLevel]gen.LogLevel{
		gen.LogLevelDefault:  gen.LogLevelWarning,
		gen.LogLevelSystem:   gen.LogLevelSystem,
		gen.LogLevelTrace:    gen.LogLevelTrace,
		gen.LogLevelDisabled: gen.LogLevelDisabled,
	} {
		got, err := inheritLevel(level, gen.LogLevelWarning)
		assert.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, bad := range []gen.LogLevel{-101, -99, -3, 6} {
		_, err := inheritLevel(bad, gen.LogLevelInfo)
		assert.ErrorIs(t, err, gen.ErrIncorrect)
	}
}

// watcher is an actor that links to and monitors a process, and ends at any message but "watch".
type watcher struct {
	act.Actor
	target gen.PID
}

func (w *watcher) HandleMessage(_ gen.PID, message any) error {
	if message == "watch" {
		return errors.Join(w.LinkPID(w.target), w.MonitorPID(w.target))
	}
	return gen.TerminateReasonNormal
}

// What a process watched is forgotten with it, while its target lives on.
func TestEndedWatcherIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started, err := Start("test@localhost", gen.NodeOptions{Log: gen.LogOptions{Level: gen.LogLevelDisabled}})
		require.NoError(t, err)
		defer started.Stop()
		n := started.(*node)
		spawn := func(w *watcher) gen.PID {
			pid, err := n.Spawn(func() gen.ProcessBehavior { return w }, gen.ProcessOptions{})
			require.NoError(t, err)
			return pid
		}
		target := spawn(&watcher{})
		pid := spawn(&watcher{target: target})
		require.NoError(t, n.Send(pid, "watch"))
		synctest.Wait()
		require.Len(t, n.watchers, 2)
		require.NoError(t, n.Send(pid, "end"))
		synctest.Wait()
		assert.Empty(t, n.watchers)
		_, err = n.ProcessInfo(target)
		assert.NoError(t, err)
	})
}
