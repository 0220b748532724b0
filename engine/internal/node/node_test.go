package node

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

func TestCheckName(t *testing.T) {
	assert.NoError(t, checkName("n"))
	assert.NoError(t, checkName(gen.Atom(strings.Repeat("n", maxAtom))))
	assert.ErrorIs(t, checkName(""), gen.ErrIncorrect)
	assert.ErrorIs(t, checkName(gen.Atom(strings.Repeat("n", maxAtom+1))), gen.ErrAtomTooLong)
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

// watcher is an actor that links to and monitors a process, and ends at its first message.
type watcher struct {
	act.Actor
	target gen.PID
}

func (w *watcher) Init(...any) error {
	if w.target == (gen.PID{}) {
		return nil
	}
	return errors.Join(w.LinkPID(w.target), w.MonitorPID(w.target))
}

func (w *watcher) HandleMessage(gen.PID, any) error { return gen.TerminateReasonNormal }

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
		require.Len(t, n.watches.byWatcher, 1)
		require.Len(t, n.watches.byTarget, 2)
		require.NoError(t, n.Send(pid, "end"))
		synctest.Wait()
		assert.Empty(t, n.watches.byWatcher)
		assert.Empty(t, n.watches.byTarget)
		_, err = n.ProcessInfo(target)
		assert.NoError(t, err)
	})
}

// blocking is a kind of unit that works until it is released.
type blocking struct {
	unit
	release chan struct{}
}

func newBlocking() *blocking {
	b := &blocking{release: make(chan struct{})}
	b.kind = b
	b.box.Init(0)
	return b
}

func (b *blocking) work() error     { <-b.release; return nil }
func (b *blocking) awake(bool)      {}
func (b *blocking) shut(error) bool { return false }
func (b *blocking) terminate()      {}

func TestWorkersAreReusedAndLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ws workers
		idle := func() int {
			synctest.Wait()
			ws.mu.Lock()
			defer ws.mu.Unlock()
			return len(ws.idle)
		}
		busy := func(count int) (release func()) {
			units := make([]*blocking, count)
			for i := range units {
				units[i] = newBlocking()
				ws.run(&units[i].unit)
			}
			return func() {
				for _, u := range units {
					close(u.release)
				}
			}
		}
		release := busy(10)
		require.Zero(t, idle())
		release()
		require.Equal(t, 10, idle())
		time.Sleep(trimInterval) // they were not idle for the whole interval
		require.Equal(t, 10, idle())

		release = busy(3)
		require.Equal(t, 7, idle(), "reused")
		release()
		time.Sleep(trimInterval)
		require.Equal(t, 3, idle(), "seven were not needed")
		time.Sleep(2 * trimInterval)
		require.Zero(t, idle(), "nor were the others")

		release = busy(maxIdleWorkers + 50)
		require.Zero(t, idle(), "none waits for another")
		release()
		require.Equal(t, maxIdleWorkers, idle())
		release = busy(1)
		ws.close()
		require.Zero(t, idle())
		release()
		require.Zero(t, idle(), "one that works ends afterwards")
	})
}

// Under load the queue of units may never become empty, and must not grow with what has passed through it.
func TestQueueOfUnitsStaysSmall(t *testing.T) {
	ws := workers{coming: true} // nobody else takes units
	u := newBlocking()
	ws.run(&u.unit)
	for range 10_000 {
		ws.run(&u.unit)
		got, _ := ws.next(nil, false)
		require.Same(t, &u.unit, got)
	}
	assert.LessOrEqual(t, cap(ws.queue), 16)
}
