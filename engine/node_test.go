package ergo_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo"
	"ergo.services/ergo/gen"
)

func TestStartNodeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		node    gen.Atom
		options gen.NodeOptions
		want    error
	}{
		"no host":      {node: "name", want: gen.ErrIncorrect},
		"empty name":   {node: "@host", want: gen.ErrIncorrect},
		"empty host":   {node: "name@", want: gen.ErrIncorrect},
		"two hosts":    {node: "name@host@host", want: gen.ErrIncorrect},
		"nothing":      {node: "", want: gen.ErrIncorrect},
		"long":         {node: gen.Atom(strings.Repeat("n", 255) + "@h"), want: gen.ErrAtomTooLong},
		"level":        {node: "a@b", options: gen.NodeOptions{Log: gen.LogOptions{Level: 77}}, want: gen.ErrIncorrect},
		"logger":       {node: "a@b", options: gen.NodeOptions{Log: gen.LogOptions{Loggers: []gen.Logger{{Name: "x"}}}}, want: gen.ErrIncorrect},
		"logger twice": {node: "a@b", options: gen.NodeOptions{Log: gen.LogOptions{Loggers: []gen.Logger{{Name: "default", Logger: &recorder{}}}}}, want: gen.ErrTaken},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ergo.StartNode(c.node, c.options)
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func TestManyNodes(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			name := gen.Atom(fmt.Sprintf("node%d@localhost", i))
			node, err := ergo.StartNode(name, gen.NodeOptions{Log: gen.LogOptions{Level: gen.LogLevelDisabled}})
			if !assert.NoError(t, err) {
				return
			}
			defer node.Stop()
			assert.Equal(t, name, node.Name())
			assert.Equal(t, name, node.PID().Node)
			_, err = node.SpawnRegister("same", factory(newActor()), gen.ProcessOptions{})
			assert.NoError(t, err)
		})
	}
	wg.Wait()
}

func TestNodeIdentity(t *testing.T) {
	node := startNodeWith(t, gen.NodeOptions{
		CertManager: gen.CreateCertManager(certificate(7)),
		Log:         gen.LogOptions{Level: gen.LogLevelDisabled},
	})
	a, pid := spawn(t, node, newActor())

	assert.True(t, node.IsAlive())
	assert.Equal(t, certificate(7), node.CertManager().GetCertificate())
	assert.Equal(t, node.PID(), a.Parent())
	assert.Equal(t, node.PID(), a.Leader())
	assert.Equal(t, node.Creation(), pid.Creation)
	assert.NotEqual(t, node.MakeRef(), node.MakeRef())
	assert.Same(t, node, a.Node())

	_, second := spawn(t, node, newActor())
	list, err := node.ProcessList()
	require.NoError(t, err)
	assert.Equal(t, []gen.PID{pid, second}, list)

	require.NoError(t, node.Send(pid, "hello"))
	assert.Equal(t, envelope{From: node.PID(), Message: "hello"}, receive(t, a.inbox))
}

func TestUptime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := startNode(t)
		time.Sleep(3500 * time.Millisecond)
		a, _ := spawn(t, node, newActor())
		time.Sleep(2 * time.Second)
		assert.EqualValues(t, 5, node.Uptime())
		assert.EqualValues(t, 2, a.Uptime())
	})
}

func TestStopWaitsForProcessesAndMetas(t *testing.T) {
	node := startNode(t)
	parent, pid := spawn(t, node, newActor())
	child := newActor()
	child.init = func() error {
		child.SetTrapExit(true) // the shutdown of the node is not trapped
		return nil
	}
	m := newMeta()
	flushed, actorGate, metaGate := make(chan struct{}), newGate(), newGate()
	m.end = func(error) {
		_ = metaGate.task()()
		close(flushed)
	}
	parent.end = func(error) { _ = actorGate.task()() }
	_, err := parent.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	_, err = parent.Spawn(factory(child), gen.ProcessOptions{})
	require.NoError(t, err)

	stopped := make(chan struct{})
	go func() {
		node.Stop()
		close(stopped)
	}()
	receive(t, actorGate.entered)
	assert.False(t, node.IsAlive())
	assert.ErrorIs(t, node.WaitWithTimeout(time.Millisecond), gen.ErrTimeout)
	_, err = node.Spawn(factory(newActor()), gen.ProcessOptions{})
	assert.ErrorIs(t, err, gen.ErrNodeTerminated, "a stopping node takes no new process")

	actorGate.open()
	assert.Equal(t, gen.TerminateReasonShutdown, receive(t, parent.reasons))
	assert.Equal(t, gen.TerminateReasonShutdown, receive(t, child.reasons))
	receive(t, metaGate.entered)
	select {
	case <-stopped:
		assert.Fail(t, "Stop returned before the meta process had terminated")
	default:
	}
	metaGate.open()
	receive(t, stopped)
	receive(t, flushed)
	assert.Equal(t, gen.TerminateReasonShutdown, receive(t, m.reasons))

	node.Wait()
	require.NoError(t, node.WaitWithTimeout(0))
	_, err = node.ProcessList()
	assert.ErrorIs(t, err, gen.ErrNodeTerminated)
	_, err = node.ProcessInfo(pid)
	assert.ErrorIs(t, err, gen.ErrNodeTerminated)
	_, err = node.ProcessState(pid)
	assert.ErrorIs(t, err, gen.ErrNodeTerminated)
	_, err = node.MetaInfo(m.ID())
	assert.ErrorIs(t, err, gen.ErrNodeTerminated)
	_, err = node.UnregisterName("name")
	assert.ErrorIs(t, err, gen.ErrNodeTerminated)
	assert.ErrorIs(t, node.RegisterName("name", pid), gen.ErrNodeTerminated)
	assert.ErrorIs(t, node.SendExit(pid, gen.TerminateReasonNormal), gen.ErrNodeTerminated)
	assert.ErrorIs(t, node.Kill(pid), gen.ErrNodeTerminated)
	assert.ErrorIs(t, node.Send(pid, 1), gen.ErrNodeTerminated)
	assert.ErrorIs(t, node.LoggerAdd("late", &recorder{}), gen.ErrNodeTerminated)
	_, err = node.Spawn(factory(newActor()), gen.ProcessOptions{})
	assert.ErrorIs(t, err, gen.ErrNodeTerminated)
	node.Stop() // again is no harm
}

// What processes and meta processes log in their last callbacks arrives, and a
// Start that Terminate has unblocked has returned: it may be writing last bytes.
func TestStopEndsLoggersAndStartsLast(t *testing.T) {
	log := &recorder{}
	node := startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{
		DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
		Loggers:       []gen.Logger{{Name: "recorder", Logger: log}},
	}})
	parent, _ := spawn(t, node, newActor())
	m := &lateStart{meta: newMeta(), terminated: make(chan struct{}), leave: make(chan struct{})}
	parent.end = func(error) { parent.Log().Info("last words of the actor") }
	_, err := parent.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	stopped := make(chan struct{})
	go func() {
		node.Stop()
		close(stopped)
	}()
	receive(t, m.terminated)
	assert.ErrorIs(t, node.WaitWithTimeout(10*time.Millisecond), gen.ErrTimeout, "Start has not returned")
	close(m.leave)
	receive(t, stopped)
	assert.Equal(t, "[info] last words of the actor\n[info] last words of Terminate\n[info] last words of Start\n", log.text())
	assert.Equal(t, 1, log.ended)
}

// lateStart is a meta process whose Start goes on after Terminate.
type lateStart struct {
	*meta
	terminated, leave chan struct{}
}

func (m *lateStart) Start() error {
	<-m.leave
	m.Log().Info("last words of Start")
	return nil
}

func (m *lateStart) Terminate(error) {
	m.Log().Info("last words of Terminate")
	close(m.terminated)
}

// Processes that spawn while the node stops either fail to or are stopped too.
func TestStopRacesSpawn(t *testing.T) {
	for range 50 {
		node := startNode(t)
		var wg sync.WaitGroup
		started := make(chan *actor, 1000)
		for range 4 {
			wg.Go(func() {
				for range 50 {
					a := newActor()
					if _, err := node.Spawn(factory(a), gen.ProcessOptions{}); err != nil {
						assert.ErrorIs(t, err, gen.ErrNodeTerminated)
						return
					}
					started <- a
				}
			})
		}
		receive(t, started)
		node.Stop()
		wg.Wait()
		close(started)
		for a := range started {
			assert.Equal(t, gen.TerminateReasonShutdown, receive(t, a.reasons))
		}
	}
}

func TestStopForceDoesNotWaitForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := startNode(t)
		stuck, pid := spawn(t, node, newActor())
		idle, _ := spawn(t, node, newActor())
		g := hold(t, node, pid)
		stopped := make(chan struct{})
		go func() {
			node.Stop() // waits for the stuck one, until StopForce cuts it short
			close(stopped)
		}()
		assert.Equal(t, gen.TerminateReasonShutdown, receive(t, idle.reasons))
		node.StopForce()
		receive(t, stopped)

		// What the stuck one still does has no effect beyond its end.
		m := newMeta()
		_, err := stuck.SpawnMeta(m, gen.MetaOptions{})
		require.NoError(t, err)
		_, err = stuck.Spawn(factory(newActor()), gen.ProcessOptions{})
		require.ErrorIs(t, err, gen.ErrNodeTerminated)
		g.open()
		assert.Equal(t, gen.TerminateReasonKill, receive(t, stuck.reasons))
		assert.Equal(t, gen.TerminateReasonKill, receive(t, m.reasons))
	})
}

func TestStopForceKills(t *testing.T) {
	node := startNode(t)
	a, _ := spawn(t, node, newActor())
	m := newMeta()
	_, err := a.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	node.StopForce()
	assert.Equal(t, gen.TerminateReasonKill, receive(t, a.reasons))
	assert.Equal(t, gen.TerminateReasonKill, receive(t, m.reasons))
	node.Wait()
	node.Stop()
}

func TestEnvInheritance(t *testing.T) {
	node := startNodeWith(t, gen.NodeOptions{
		Env: map[gen.Env]any{"a": 1, "b": 1, "c": 1},
		Log: gen.LogOptions{Level: gen.LogLevelDisabled},
	})
	a, _ := spawnWith(t, node, newActor(), gen.ProcessOptions{Env: map[gen.Env]any{"b": 2, "A": 2}})
	child := newActor()
	_, err := a.Spawn(factory(child), gen.ProcessOptions{Env: map[gen.Env]any{"c": 3}})
	require.NoError(t, err)
	m := newMeta()
	_, err = a.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)

	assert.Equal(t, map[gen.Env]any{"a": 1, "b": 1, "c": 1}, node.EnvList())
	assert.Equal(t, map[gen.Env]any{"a": 1, "A": 2, "b": 2, "c": 1}, a.EnvList(), "case matters")
	assert.Equal(t, map[gen.Env]any{"a": 1, "A": 2, "b": 2, "c": 3}, child.EnvList())
	assert.Equal(t, a.EnvList(), m.EnvList())

	a.SetEnv("d", 4)
	a.SetEnv("a", nil)
	node.SetEnv("e", 5)
	value, ok := m.Env("d")
	assert.True(t, ok)
	assert.Equal(t, 4, value, "a meta process sees its parent's environment")
	_, ok = a.Env("a")
	assert.False(t, ok, "nil removes")
	_, ok = child.Env("d")
	assert.False(t, ok, "a child keeps what it inherited")
	_, ok = a.Env("e")
	assert.False(t, ok)
	assert.Equal(t, 5, node.EnvDefault("e", 0))
	assert.Equal(t, 9, a.EnvDefault("none", 9))
	assert.Equal(t, 9, node.EnvDefault("none", 9))
	list := node.EnvList()
	list["f"] = 6
	_, ok = node.Env("f")
	assert.False(t, ok, "the list is a copy")
}

func TestRefusedOptions(t *testing.T) {
	node := startNode(t)
	for name, options := range map[string]gen.ProcessOptions{
		"ProcessOptions.MailboxSize":  {MailboxSize: -1},
		"ProcessOptions.SendPriority": {SendPriority: 3},
		"ProcessOptions.LogLevel":     {LogLevel: 6},
		"ProcessOptions.Fallback":     {Fallback: gen.ProcessFallback{Enable: true}},
	} {
		_, err := node.Spawn(factory(newActor()), options)
		assert.ErrorIs(t, err, gen.ErrIncorrect)
		assert.ErrorContains(t, err, name)
	}
	a, _ := spawn(t, node, newActor())
	for name, options := range map[string]gen.MetaOptions{
		"MetaOptions.MailboxSize":  {MailboxSize: -1},
		"MetaOptions.SendPriority": {SendPriority: -1},
		"MetaOptions.LogLevel":     {LogLevel: -50},
	} {
		_, err := a.SpawnMeta(newMeta(), options)
		assert.ErrorIs(t, err, gen.ErrIncorrect)
		assert.ErrorContains(t, err, name)
	}
	_, err := a.SpawnMeta(nil, gen.MetaOptions{})
	assert.ErrorIs(t, err, gen.ErrIncorrect)
	_, err = node.Spawn(factory(nil), gen.ProcessOptions{})
	assert.ErrorIs(t, err, gen.ErrIncorrect)
}
