package ergo_test

import (
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"
)

// spawnMeta starts a meta process from one of the parent's callbacks.
func spawnMeta(t testing.TB, parent *actor, m gen.MetaBehavior, options gen.MetaOptions) gen.Alias {
	t.Helper()
	var alias gen.Alias
	var err error
	within(t, parent, func() { alias, err = parent.SpawnMeta(m, options) })
	require.NoError(t, err)
	return alias
}

func TestMetaInitRunsOnTheCaller(t *testing.T) {
	node := startNode(t)
	parent, pid := spawn(t, node, newActor())
	m := newMeta()
	inInit := false
	m.init = func() error {
		inInit = true
		assert.Contains(t, string(debug.Stack()), "(*actor).HandleMessage", "on the caller's goroutine")
		assert.Equal(t, pid, m.Parent())
		assert.ErrorIs(t, node.Send(m.ID(), 1), gen.ErrProcessTerminated, "not reachable yet")
		_, err := node.MetaInfo(m.ID())
		assert.ErrorIs(t, err, gen.ErrMetaUnknown)
		assert.NoError(t, m.Send(pid, "from init"))
		return nil
	}
	var alias gen.Alias
	within(t, parent, func() {
		var err error
		alias, err = parent.SpawnMeta(m, gen.MetaOptions{})
		assert.NoError(t, err)
		assert.True(t, inInit)
		assert.NoError(t, node.Send(alias, "reachable"))
	})
	assert.Equal(t, m.ID(), alias)
	assert.Equal(t, "reachable", receive(t, m.inbox).Message)
	assert.Equal(t, envelope{From: pid, Message: "from init"}, receive(t, parent.inbox), "sent as the parent")
}

func TestMetaFailedInit(t *testing.T) {
	for name, c := range map[string]struct {
		init func() error
		want error
	}{
		"error": {func() error { return errTest }, errTest},
		"panic": {func() error { panic("in Init") }, gen.TerminateReasonPanic},
	} {
		t.Run(name, func(t *testing.T) {
			node := startNode(t)
			parent, pid := spawn(t, node, newActor())
			m := newMeta()
			m.init = c.init
			within(t, parent, func() {
				_, err := parent.SpawnMeta(m, gen.MetaOptions{})
				assert.ErrorIs(t, err, c.want)
			})
			info, err := node.ProcessInfo(pid)
			require.NoError(t, err)
			assert.Empty(t, info.Metas)
			node.Stop()
			assert.Empty(t, m.reasons, "Terminate is left to the caller")
		})
	}
}

// endings are the ways to end a meta process, each with the reason of the end.
var endings = map[string]struct {
	do   func(t testing.TB, parent *actor, alias gen.Alias, m *meta)
	want error
}{
	"Start returns nil":   {func(t testing.TB, _ *actor, _ gen.Alias, m *meta) { m.starts <- nil }, gen.TerminateReasonNormal},
	"Start returns error": {func(t testing.TB, _ *actor, _ gen.Alias, m *meta) { m.starts <- errTest }, errTest},
	"Start panics":        {func(t testing.TB, _ *actor, _ gen.Alias, m *meta) { m.starts <- errPanic }, gen.TerminateReasonPanic},
	"HandleMessage returns error": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		_ = parent.Send(alias, task(func() error { return errTest }))
	}, errTest},
	"HandleMessage panics": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		_ = parent.Send(alias, task(func() error { panic("in HandleMessage") }))
	}, gen.TerminateReasonPanic},
	"HandleMessage calls Goexit": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		_ = parent.Send(alias, task(func() error {
			runtime.Goexit()
			return nil
		}))
	}, gen.TerminateReasonPanic},
	"HandleCall returns error": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		ask(t, parent, alias, func(from *actor) { _, _ = from.Call(alias, task(func() error { return errTest })) })
	}, errTest},
	"HandleCall panics": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		ask(t, parent, alias, func(from *actor) { _, _ = from.Call(alias, task(func() error { panic("in HandleCall") })) })
	}, gen.TerminateReasonPanic},
	"HandleInspect panics": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		ask(t, parent, alias, func(from *actor) { _, _ = from.InspectMeta(alias, "panic") })
	}, gen.TerminateReasonPanic},
	"SendExitMeta": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		_ = parent.SendExitMeta(alias, errTest)
	}, errTest},
	"SendExitMeta, normal": {func(t testing.TB, parent *actor, alias gen.Alias, _ *meta) {
		_ = parent.SendExitMeta(alias, gen.TerminateReasonNormal)
	}, gen.TerminateReasonNormal},
	"parent exits": {func(t testing.TB, parent *actor, _ gen.Alias, _ *meta) {
		_ = parent.Node().SendExit(parent.PID(), errTest)
	}, errTest},
	"parent is killed": {func(t testing.TB, parent *actor, _ gen.Alias, _ *meta) {
		_ = parent.Node().Kill(parent.PID())
	}, gen.TerminateReasonKill},
	"parent panics": {func(t testing.TB, parent *actor, _ gen.Alias, _ *meta) {
		_ = parent.Node().Send(parent.PID(), task(func() error { panic("parent") }))
	}, gen.TerminateReasonPanic},
	"node stops": {func(t testing.TB, parent *actor, _ gen.Alias, _ *meta) {
		parent.Node().Stop()
	}, gen.TerminateReasonShutdown},
}

// ask lets an actor ask a meta process that ends over it.
func ask(t testing.TB, parent *actor, alias gen.Alias, do func(from *actor)) {
	node, from := parent.Node(), newActor()
	pid, err := node.Spawn(factory(from), gen.ProcessOptions{})
	if err != nil {
		return // the node stops
	}
	_ = node.Send(pid, task(func() error {
		do(from)
		return nil
	}))
	eventually(t, func() bool {
		_, err := node.MetaInfo(alias)
		return err != nil
	})
	_ = node.Kill(pid) // it waits for an answer
}

func TestEveryWayEndsTheMetaProcess(t *testing.T) {
	for name, ending := range endings {
		t.Run(name, func(t *testing.T) {
			node := startNode(t)
			parent, _ := spawn(t, node, newActor())
			m := newMeta()
			m.end = func(error) {
				assert.ErrorIs(t, node.Send(m.ID(), 1), gen.ErrProcessTerminated, "the alias is gone by then")
				_, err := node.MetaInfo(m.ID())
				assert.ErrorIs(t, err, gen.ErrMetaUnknown)
			}
			alias := spawnMeta(t, parent, m, gen.MetaOptions{})
			ending.do(t, parent, alias, m)
			assert.ErrorIs(t, receive(t, m.reasons), ending.want)
			node.Stop()
			assert.Empty(t, m.reasons, "Terminate runs once")
			assert.False(t, m.overlap.Load())
			assert.ErrorIs(t, m.Send(node.PID(), 1), gen.ErrProcessTerminated, "the parent has ended")
			_, err := m.Spawn(newMeta(), gen.MetaOptions{})
			assert.ErrorIs(t, err, gen.ErrProcessTerminated)
		})
	}
}

// All ways of ending at once, with messages under way: one Terminate, never beside
// another callback of the message side.
func TestEndingsRace(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for range rounds {
		node := startNode(t)
		parent, _ := spawn(t, node, newActor())
		m := newMeta()
		m.end = func(error) { runtime.Gosched() }
		alias := spawnMeta(t, parent, m, gen.MetaOptions{})
		start := make(chan struct{})
		var wg sync.WaitGroup
		for name, ending := range endings {
			if name == "Start returns error" || name == "Start panics" {
				continue // Start returns once
			}
			wg.Go(func() {
				<-start
				ending.do(t, parent, alias, m)
			})
		}
		for range 2 {
			wg.Go(func() {
				<-start
				for range 20 {
					_ = parent.Send(alias, 1)
				}
			})
		}
		close(start)
		wg.Wait()
		assert.NotNil(t, receive(t, m.reasons))
		node.Stop()
		require.Empty(t, m.reasons, "exactly one Terminate")
		require.False(t, m.overlap.Load(), "Terminate ran beside a handler")
	}
}

// Terminate waits for the handler that is running, whoever ends the meta process,
// while the alias is gone at once.
func TestTerminateWaitsForHandler(t *testing.T) {
	for _, name := range []string{"Start returns error", "SendExitMeta", "parent exits"} {
		t.Run(name, func(t *testing.T) {
			node := startNode(t)
			parent, parentPID := spawn(t, node, newActor())
			m := newMeta()
			alias := spawnMeta(t, parent, m, gen.MetaOptions{})
			g := hold(t, node, alias)
			require.NoError(t, node.Send(alias, "waiting"))
			endings[name].do(t, parent, alias, m)
			eventually(t, func() bool {
				_, err := node.MetaInfo(alias)
				return err != nil
			})
			assert.ErrorIs(t, node.Send(alias, 1), gen.ErrProcessTerminated)
			if info, err := node.ProcessInfo(parentPID); err == nil {
				assert.Empty(t, info.Metas)
			}
			assert.Empty(t, m.reasons, "the handler still runs")
			g.open()
			assert.ErrorIs(t, receive(t, m.reasons), errTest)
			assert.Empty(t, m.inbox, "what waited is dropped")
		})
	}
}

// An end does not wait for Start: it is Terminate that unblocks it.
func TestTerminateUnblocksStart(t *testing.T) {
	node := startNode(t)
	parent, _ := spawn(t, node, newActor())
	m := newMeta()
	alias := spawnMeta(t, parent, m, gen.MetaOptions{})
	within(t, parent, func() { assert.NoError(t, parent.SendExitMeta(alias, errTest)) })
	assert.Equal(t, errTest, receive(t, m.reasons), "not what Start returns then")
	receive(t, m.stopped)
}

func TestTerminatePanics(t *testing.T) {
	node := startNode(t)
	parent, _ := spawn(t, node, newActor())
	m := newMeta()
	m.end = func(error) {
		close(m.stopped)
		panic("in Terminate")
	}
	alias := spawnMeta(t, parent, m, gen.MetaOptions{})
	watcher, _ := spawn(t, node, newActor())
	require.NoError(t, watcher.MonitorAlias(alias))
	require.NoError(t, parent.SendExitMeta(alias, errTest))
	assert.Equal(t, gen.MessageDownAlias{Alias: alias, Reason: errTest}, receive(t, watcher.inbox).Message)
}

func TestMetaHandlersRunOneAtATime(t *testing.T) {
	node := startNode(t)
	parent, _ := spawn(t, node, newActor())
	m := newMeta()
	alias := spawnMeta(t, parent, m, gen.MetaOptions{})
	var wg sync.WaitGroup
	for range 4 {
		from, _ := spawn(t, node, newActor())
		wg.Go(func() {
			for i := range 100 {
				assert.NoError(t, from.Send(alias, i))
				within(t, from, func() {
					got, err := from.Call(alias, i)
					assert.NoError(t, err)
					assert.Equal(t, i, got)
					_, err = from.InspectMeta(alias)
					assert.NoError(t, err)
				})
			}
		})
	}
	wg.Wait()
	assert.False(t, m.overlap.Load())
	next := map[gen.PID]int{}
	for range 400 {
		e := receive(t, m.inbox)
		assert.Equal(t, next[e.From], e.Message, "in order per sender")
		next[e.From]++
	}
}

func TestMetaMailbox(t *testing.T) {
	node := startNode(t)
	parent, _ := spawn(t, node, newActor())
	m := newMeta()
	alias := spawnMeta(t, parent, m, gen.MetaOptions{MailboxSize: 2})
	g := hold(t, node, alias)
	require.NoError(t, node.Send(alias, 1))
	require.NoError(t, node.Send(alias, 2))
	assert.ErrorIs(t, node.Send(alias, 3), gen.ErrMetaMailboxFull)
	require.NoError(t, node.SendWithPriority(alias, 4, gen.MessagePriorityMax))
	g.open()
	for _, want := range []int{4, 1, 2} {
		assert.Equal(t, want, receive(t, m.inbox).Message)
	}
}

func TestMetaSends(t *testing.T) {
	node := startNode(t)
	parent, pid := spawn(t, node, newActor())
	to, toPID := spawn(t, node, newActor())
	m := newMeta()
	alias := spawnMeta(t, parent, m, gen.MetaOptions{SendPriority: gen.MessagePriorityHigh})
	g := hold(t, node, toPID)
	require.NoError(t, m.SendWithPriority(toPID, "normal", gen.MessagePriorityNormal))
	require.NoError(t, m.Send(toPID, "high"))
	require.NoError(t, m.SendWithPriority(toPID, "max", gen.MessagePriorityMax))
	assert.ErrorIs(t, m.SendWithPriority(toPID, 1, 9), gen.ErrIncorrect)
	assert.ErrorIs(t, m.Send(42, 1), gen.ErrUnsupported)
	g.open()
	for _, want := range []string{"max", "high", "normal"} {
		assert.Equal(t, envelope{From: pid, Message: want}, receive(t, to.inbox))
	}
	// Also after its end, as long as the parent lives: Start may have something to
	// report when Terminate has unblocked it.
	require.NoError(t, parent.SendExitMeta(alias, gen.TerminateReasonNormal))
	receive(t, m.reasons)
	require.NoError(t, m.Send(toPID, "epilogue"))
	assert.Equal(t, envelope{From: pid, Message: "epilogue"}, receive(t, to.inbox))
}

func TestMetaCallErrorsEndIt(t *testing.T) {
	node := startNode(t)
	parent, _ := spawn(t, node, newActor())
	m := newMeta()
	m.call = func(gen.PID, gen.Ref, any) (any, error) { return errTest, gen.ErrMalformed }
	alias := spawnMeta(t, parent, m, gen.MetaOptions{})
	within(t, parent, func() {
		got, err := parent.Call(alias, 1)
		assert.NoError(t, err)
		assert.Equal(t, errTest, got, "errors travel as results")
	})
	assert.Equal(t, gen.ErrMalformed, receive(t, m.reasons))
}

// A meta process that does not answer leaves the response to its parent.
func TestParentAnswersForMeta(t *testing.T) {
	node := startNode(t)
	parent, _ := spawn(t, node, newActor())
	m := newMeta()
	m.call = func(from gen.PID, ref gen.Ref, request any) (any, error) {
		return nil, m.Send(m.Parent(), task(func() error { return parent.SendResponse(from, ref, "for it") }))
	}
	alias := spawnMeta(t, parent, m, gen.MetaOptions{})
	from, _ := spawn(t, node, newActor())
	within(t, from, func() {
		got, err := from.CallAlias(alias, 1, 0)
		assert.NoError(t, err)
		assert.Equal(t, "for it", got)
	})
}

func TestSiblings(t *testing.T) {
	node := startNode(t)
	parent, pid := spawn(t, node, newActor())
	first, second, failing := newMeta(), newMeta(), newMeta()
	firstAlias := spawnMeta(t, parent, first, gen.MetaOptions{})
	second.init = func() error {
		assert.Equal(t, pid, second.Parent())
		return nil
	}
	failing.init = func() error { return errTest }
	// From a callback of the first, as a server does for each connection.
	spawned := make(chan gen.Alias, 1)
	require.NoError(t, node.Send(firstAlias, task(func() error {
		alias, err := first.Spawn(second, gen.MetaOptions{})
		assert.NoError(t, err)
		_, failed := first.Spawn(failing, gen.MetaOptions{})
		assert.ErrorIs(t, failed, errTest)
		spawned <- alias
		return nil
	})))
	secondAlias := receive(t, spawned)
	info, err := node.ProcessInfo(pid)
	require.NoError(t, err)
	assert.ElementsMatch(t, []gen.Alias{firstAlias, secondAlias}, info.Metas)

	require.NoError(t, parent.SendExitMeta(firstAlias, errTest))
	receive(t, first.reasons)
	require.NoError(t, node.Send(secondAlias, "alive"), "siblings end on their own")
	assert.Equal(t, "alive", receive(t, second.inbox).Message)
	require.NoError(t, node.SendExit(pid, errTest))
	assert.Equal(t, errTest, receive(t, second.reasons), "or with the parent")
}

func TestAliasesAreNeverReused(t *testing.T) {
	node := startNode(t)
	parent, _ := spawn(t, node, newActor())
	seen := map[gen.Alias]bool{}
	for range 200 {
		m := newMeta()
		alias := spawnMeta(t, parent, m, gen.MetaOptions{})
		require.False(t, seen[alias])
		seen[alias] = true
		require.NoError(t, parent.SendExitMeta(alias, gen.TerminateReasonNormal))
		receive(t, m.reasons)
		assert.ErrorIs(t, node.Send(alias, 1), gen.ErrProcessTerminated)
		assert.ErrorIs(t, parent.SendExitMeta(alias, gen.TerminateReasonNormal), gen.ErrMetaUnknown)
	}
}

func TestMetaInfo(t *testing.T) {
	node := startNode(t)
	parent, pid := spawn(t, node, newActor())
	m := newMeta()
	alias := spawnMeta(t, parent, m, gen.MetaOptions{})
	require.NoError(t, m.Send(pid, 1))
	receive(t, parent.inbox)
	done := make(chan struct{})
	require.NoError(t, node.Send(alias, task(func() error {
		defer close(done)
		info, err := node.MetaInfo(alias)
		assert.NoError(t, err)
		assert.Equal(t, gen.MetaInfo{
			ID: alias, Parent: pid, Behavior: "ergo_test.meta", MessagesIn: 1, MessagesOut: 1,
			State: gen.MetaStateRunning,
		}, info)
		return nil
	})))
	receive(t, done)
	eventually(t, func() bool {
		info, err := parent.MetaInfo(alias)
		return err == nil && info.State == gen.MetaStateSleep
	})
	_, err := node.MetaInfo(gen.Alias{})
	assert.ErrorIs(t, err, gen.ErrMetaUnknown)
	other := alias
	other.Node = "other@host"
	_, err = node.MetaInfo(other)
	assert.ErrorIs(t, err, gen.ErrNoConnection)
}

// A parent that ends while Init runs leaves no meta process behind.
func TestParentEndsDuringInit(t *testing.T) {
	node := startNode(t)
	parent, pid := spawn(t, node, newActor())
	first, late := newMeta(), newMeta()
	spawnMeta(t, parent, first, gen.MetaOptions{})
	late.init = func() error {
		require.NoError(t, node.SendExit(pid, errTest))
		receive(t, parent.reasons)
		eventually(t, func() bool {
			_, err := parent.Info()
			return err != nil
		})
		return nil
	}
	_, err := first.Spawn(late, gen.MetaOptions{})
	assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	node.Stop()
	assert.Empty(t, late.reasons, "Terminate is left to the caller")
}

// Meta processes that are spawned while their parent ends either fail to or end.
func TestSpawnMetaRacesParentEnd(t *testing.T) {
	node := startNode(t)
	for range 100 {
		parent, pid := spawn(t, node, newActor())
		first := newMeta()
		spawnMeta(t, parent, first, gen.MetaOptions{})
		var wg sync.WaitGroup
		metas := make(chan *meta, 100)
		wg.Go(func() {
			for range 20 {
				m := newMeta()
				if _, err := first.Spawn(m, gen.MetaOptions{}); err != nil {
					assert.ErrorIs(t, err, gen.ErrProcessTerminated)
					return
				}
				metas <- m
			}
		})
		require.NoError(t, node.SendExit(pid, errTest))
		wg.Wait()
		close(metas)
		for m := range metas {
			assert.Equal(t, errTest, receive(t, m.reasons))
		}
	}
}
