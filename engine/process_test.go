package ergo_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"
)

func TestSpawnReturnsAfterInit(t *testing.T) {
	node := startNode(t)
	a := newActor()
	done := false
	a.init = func() error {
		assert.Equal(t, gen.ProcessStateInit, a.State())
		assert.NoError(t, a.Send(a.PID(), "from init"), "may send, to itself too")
		done = true
		return nil
	}
	_, err := node.Spawn(factory(a), gen.ProcessOptions{})
	require.NoError(t, err)
	assert.True(t, done)
	assert.Equal(t, "from init", receive(t, a.inbox).Message)

	idle, _ := spawn(t, node, newActor())
	assert.Equal(t, gen.ProcessStateSleep, idle.State())
}

// As Ergo, which refuses them before the process runs.
func TestNoLinksAndMonitorsInInit(t *testing.T) {
	node := startNode(t)
	_, pid := spawn(t, node, newActor())
	a := newActor()
	a.init = func() error {
		alias, err := a.SpawnMeta(newMeta(), gen.MetaOptions{})
		assert.NoError(t, err)
		assert.ErrorIs(t, a.MonitorAlias(alias), gen.ErrNotAllowed)
		assert.ErrorIs(t, a.MonitorPID(pid), gen.ErrNotAllowed)
		assert.ErrorIs(t, a.LinkPID(pid), gen.ErrNotAllowed)
		return nil
	}
	spawn(t, node, a)
}

func TestFailedInit(t *testing.T) {
	for name, c := range map[string]struct {
		init func() error
		want error
	}{
		"error": {init: func() error { return errTest }, want: errTest},
		"panic": {init: func() error { panic("in Init") }, want: gen.TerminateReasonPanic},
	} {
		t.Run(name, func(t *testing.T) {
			node := startNode(t)
			a, m := newActor(), newMeta()
			a.init = func() error {
				_, err := a.SpawnMeta(m, gen.MetaOptions{})
				assert.NoError(t, err)
				return c.init()
			}
			_, err := node.SpawnRegister("name", factory(a), gen.ProcessOptions{})
			assert.ErrorIs(t, err, c.want)
			assert.ErrorIs(t, receive(t, m.reasons), c.want, "its meta processes end too")
			assert.Empty(t, a.reasons, "no Terminate")
			assert.ErrorIs(t, node.Send("name", 1), gen.ErrProcessUnknown)
			assert.ErrorIs(t, node.Send(a.PID(), 1), gen.ErrProcessTerminated)
			assert.ErrorIs(t, a.Send(a.PID(), 1), gen.ErrProcessTerminated)
			list, err := node.ProcessList()
			require.NoError(t, err)
			assert.Empty(t, list)
		})
	}
}

// A test that fails inside a callback calls runtime.Goexit: the node must still
// be able to stop.
func TestGoexitInCallbacks(t *testing.T) {
	node := startNode(t)
	a, pid := spawn(t, node, newActor())
	require.NoError(t, node.Send(pid, task(func() error {
		runtime.Goexit()
		return nil
	})))
	assert.Equal(t, gen.TerminateReasonPanic, receive(t, a.reasons))

	inInit := newActor()
	inInit.init = func() error {
		runtime.Goexit()
		return nil
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = node.Spawn(factory(inInit), gen.ProcessOptions{})
	}()
	receive(t, gone)
	list, err := node.ProcessList()
	require.NoError(t, err)
	assert.Empty(t, list)
}

func TestOrderPerSenderAndPriority(t *testing.T) {
	node := startNode(t)
	to, pid := spawn(t, node, newActor())
	g := hold(t, node, pid)
	const senders, each = 4, 60
	var wg sync.WaitGroup
	for range senders {
		from, _ := spawn(t, node, newActor())
		wg.Go(func() {
			for i := range each {
				assert.NoError(t, from.SendWithPriority(pid, i, gen.MessagePriority(i%3)))
			}
		})
	}
	wg.Wait()
	g.open()
	next := map[gen.PID]map[int]int{}
	before := 2
	for range senders * each {
		e := receive(t, to.inbox)
		i := e.Message.(int)
		priority := i % 3
		assert.LessOrEqual(t, priority, before, "Max before High before Normal")
		before = priority
		if next[e.From] == nil {
			next[e.From] = map[int]int{0: 0, 1: 1, 2: 2}
		}
		assert.Equal(t, next[e.From][priority], i, "in order per sender and priority")
		next[e.From][priority] += 3
	}
	assert.Len(t, next, senders)
}

// A more urgent message overtakes those that the process has already fetched.
func TestPriorityOvertakesWhileRunning(t *testing.T) {
	node := startNode(t)
	a, pid := spawn(t, node, newActor())
	first := hold(t, node, pid)
	second := newGate()
	require.NoError(t, node.Send(pid, second.task()))
	require.NoError(t, node.Send(pid, "normal"))
	first.open()
	receive(t, second.entered)
	require.NoError(t, node.SendWithPriority(pid, "high", gen.MessagePriorityHigh))
	require.NoError(t, node.SendWithPriority(pid, "max", gen.MessagePriorityMax))
	second.open()
	for _, want := range []string{"max", "high", "normal"} {
		assert.Equal(t, want, receive(t, a.inbox).Message)
	}
}

func TestSendPriorityOfProcess(t *testing.T) {
	node := startNode(t)
	to, pid := spawn(t, node, newActor())
	from, _ := spawnWith(t, node, newActor(), gen.ProcessOptions{SendPriority: gen.MessagePriorityHigh})
	g := hold(t, node, pid)
	require.NoError(t, node.Send(pid, "normal"))
	assert.Equal(t, gen.MessagePriorityHigh, from.SendPriority())
	require.NoError(t, from.SendPID(pid, "high"))
	require.NoError(t, from.SetSendPriority(gen.MessagePriorityMax))
	require.NoError(t, from.SendPID(pid, "max"))
	assert.ErrorIs(t, from.SetSendPriority(9), gen.ErrIncorrect)
	assert.ErrorIs(t, from.SendWithPriority(pid, 1, -1), gen.ErrIncorrect)
	assert.ErrorIs(t, node.SendWithPriority(pid, 1, 3), gen.ErrIncorrect)
	g.open()
	for _, want := range []string{"max", "high", "normal"} {
		assert.Equal(t, want, receive(t, to.inbox).Message)
	}
}

func TestMailboxLimit(t *testing.T) {
	node := startNode(t)
	a, pid := spawnWith(t, node, newActor(), gen.ProcessOptions{MailboxSize: 2})
	from, _ := spawn(t, node, newActor())
	for range 3 { // a full mailbox recovers
		g := hold(t, node, pid)
		require.NoError(t, from.Send(pid, 1))
		require.NoError(t, from.Send(pid, 2))
		assert.ErrorIs(t, from.Send(pid, 3), gen.ErrProcessMailboxFull)
		assert.ErrorIs(t, from.SendImportant(pid, 3), gen.ErrProcessMailboxFull)
		require.NoError(t, from.SendWithPriority(pid, 4, gen.MessagePriorityHigh), "each priority has its own limit")
		within(t, from, func() {
			_, err := from.Call(pid, 5)
			assert.ErrorIs(t, err, gen.ErrProcessMailboxFull)
		})
		g.open()
		for _, want := range []int{4, 1, 2} {
			assert.Equal(t, want, receive(t, a.inbox).Message)
		}
	}
	hold(t, node, pid).open()
	require.NoError(t, node.SendExit(pid, errTest))
	assert.Equal(t, errTest, receive(t, a.reasons))
}

func TestExitIgnoresMailboxLimit(t *testing.T) {
	node := startNode(t)
	a, pid := spawnWith(t, node, newActor(), gen.ProcessOptions{MailboxSize: 1})
	g := hold(t, node, pid)
	require.NoError(t, node.SendWithPriority(pid, 1, gen.MessagePriorityMax))
	require.NoError(t, node.SendExit(pid, errTest))
	g.open()
	assert.Equal(t, errTest, receive(t, a.reasons))
}

func TestFallback(t *testing.T) {
	node := startNode(t)
	fallback := newActor()
	fallbackPID, err := node.SpawnRegister("fallback", factory(fallback), gen.ProcessOptions{MailboxSize: 1})
	require.NoError(t, err)
	_, pid := spawnWith(t, node, newActor(), gen.ProcessOptions{
		MailboxSize: 1,
		Fallback:    gen.ProcessFallback{Enable: true, Name: "fallback", Tag: "tag"},
	})
	from, _ := spawn(t, node, newActor())
	g := hold(t, node, pid)
	require.NoError(t, from.Send(pid, "fits"))
	require.NoError(t, from.Send(pid, "overflows"))
	want := gen.MessageFallback{PID: pid, Tag: "tag", Message: "overflows"}
	assert.Equal(t, envelope{From: from.PID(), Message: want}, receive(t, fallback.inbox))

	within(t, from, func() {
		_, err := from.Call(pid, 1)
		assert.ErrorIs(t, err, gen.ErrProcessMailboxFull, "calls are not forwarded")
	})
	held := hold(t, node, fallbackPID)
	require.NoError(t, from.Send(pid, "fills the fallback"))
	assert.ErrorIs(t, from.Send(pid, "too much"), gen.ErrProcessMailboxFull)
	held.open()
	receive(t, fallback.inbox)
	require.NoError(t, node.SendExit(fallbackPID, gen.TerminateReasonNormal))
	receive(t, fallback.reasons)
	eventually(t, func() bool { return node.Send("fallback", 1) != nil })
	assert.ErrorIs(t, from.Send(pid, "nobody"), gen.ErrProcessMailboxFull)
	g.open()
}

func TestSendTargets(t *testing.T) {
	node := startNode(t)
	a := newActor()
	pid, err := node.SpawnRegister("name", factory(a), gen.ProcessOptions{})
	require.NoError(t, err)
	alias, err := a.CreateAlias()
	require.NoError(t, err)
	from, _ := spawn(t, node, newActor())
	for _, to := range []any{
		pid, gen.Atom("name"), "name", alias,
		gen.ProcessID{Name: "name"}, gen.ProcessID{Name: "name", Node: node.Name()},
	} {
		t.Run(fmt.Sprintf("%T", to), func(t *testing.T) {
			require.NoError(t, from.Send(to, 1))
			require.NoError(t, from.SendImportant(to, 2))
			require.NoError(t, node.Send(to, 3))
			assert.Equal(t, envelope{From: from.PID(), Message: 1}, receive(t, a.inbox))
			assert.Equal(t, envelope{From: from.PID(), Message: 2}, receive(t, a.inbox))
			assert.Equal(t, envelope{From: node.PID(), Message: 3}, receive(t, a.inbox))
		})
	}
	require.NoError(t, from.SendPID(pid, 1))
	require.NoError(t, from.SendProcessID(gen.ProcessID{Name: "name"}, 1))
	require.NoError(t, from.SendAlias(alias, 1))
	for range 3 {
		receive(t, a.inbox)
	}
}

func TestSendErrors(t *testing.T) {
	node := startNode(t)
	from, _ := spawn(t, node, newActor())
	ended, endedPID := spawn(t, node, newActor())
	endedAlias, err := ended.CreateAlias()
	require.NoError(t, err)
	require.NoError(t, node.SendExit(endedPID, gen.TerminateReasonNormal))
	receive(t, ended.reasons)

	unknown, other, earlier := endedPID, endedPID, endedPID
	unknown.ID, other.Node, earlier.Creation = 99999, "other@host", 1
	unknownAlias, otherAlias, earlierAlias := endedAlias, endedAlias, endedAlias
	unknownAlias.ID[0], otherAlias.Node, earlierAlias.Creation = 99999, "other@host", 1
	zeroAlias := endedAlias
	zeroAlias.ID[0] = 0
	for _, c := range []struct {
		to   any
		want error
	}{
		{unknown, gen.ErrProcessUnknown},
		{gen.PID{}, gen.ErrProcessUnknown},
		{node.PID(), gen.ErrProcessUnknown},
		{gen.Atom("unknown"), gen.ErrProcessUnknown},
		{"unknown", gen.ErrProcessUnknown},
		{gen.ProcessID{Name: "unknown"}, gen.ErrProcessUnknown},
		{unknownAlias, gen.ErrProcessUnknown},
		{gen.Alias{}, gen.ErrProcessUnknown},
		{zeroAlias, gen.ErrProcessUnknown},
		{endedPID, gen.ErrProcessTerminated},
		{endedAlias, gen.ErrProcessTerminated},
		{earlier, gen.ErrProcessIncarnation},
		{earlierAlias, gen.ErrProcessIncarnation},
		{other, gen.ErrNoConnection},
		{otherAlias, gen.ErrNoConnection},
		{gen.ProcessID{Name: "name", Node: "other@host"}, gen.ErrNoConnection},
		{42, gen.ErrUnsupported},
		{nil, gen.ErrUnsupported},
		{node.MakeRef(), gen.ErrUnsupported},
	} {
		assert.ErrorIs(t, from.Send(c.to, 1), c.want, "%T %v", c.to, c.to)
		assert.ErrorIs(t, node.Send(c.to, 1), c.want, "%T %v", c.to, c.to)
		within(t, from, func() {
			_, err := from.Call(c.to, 1)
			assert.ErrorIs(t, err, c.want, "%T %v", c.to, c.to)
		})
	}
	assert.ErrorIs(t, ended.Send(from.PID(), 1), gen.ErrProcessTerminated)
	assert.ErrorIs(t, ended.SendExit(from.PID(), gen.TerminateReasonNormal), gen.ErrProcessTerminated)
	assert.ErrorIs(t, from.SendExit(endedPID, gen.TerminateReasonNormal), gen.ErrProcessTerminated)
	assert.ErrorIs(t, from.SendExit(other, nil), gen.ErrIncorrect)
	assert.ErrorIs(t, node.SendExit(other, nil), gen.ErrIncorrect)
	assert.ErrorIs(t, from.SendExit(from.PID(), gen.TerminateReasonNormal), gen.ErrNotAllowed)
	assert.ErrorIs(t, from.SendExit(from.Parent(), gen.TerminateReasonNormal), gen.ErrNotAllowed)
	assert.ErrorIs(t, from.SendExitMeta(unknownAlias, nil), gen.ErrIncorrect)
	assert.ErrorIs(t, from.SendExitMeta(unknownAlias, gen.TerminateReasonNormal), gen.ErrMetaUnknown)
	assert.ErrorIs(t, ended.SendExitMeta(unknownAlias, gen.TerminateReasonNormal), gen.ErrProcessTerminated)
	assert.ErrorIs(t, node.Kill(endedPID), gen.ErrProcessTerminated)
	_, err = from.SendAfter(42, 1, time.Second)
	assert.ErrorIs(t, err, gen.ErrUnsupported)
	_, err = ended.SendAfter(from.PID(), 1, time.Second)
	assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	_, err = ended.SpawnMeta(newMeta(), gen.MetaOptions{})
	assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	_, err = ended.Spawn(factory(newActor()), gen.ProcessOptions{})
	assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	_, err = ended.CreateAlias()
	assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	assert.ErrorIs(t, ended.RegisterName("late"), gen.ErrProcessTerminated)
	assert.ErrorIs(t, ended.MonitorPID(from.PID()), gen.ErrProcessTerminated)
	_, err = ended.Info()
	assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	_, err = ended.Call(from.PID(), 1)
	assert.ErrorIs(t, err, gen.ErrProcessTerminated)
}

func TestSendAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := startNode(t)
		to, pid := spawn(t, node, newActor())
		from, _ := spawn(t, node, newActor())
		started := time.Now()
		_, err := from.SendAfter(pid, "later", 2*time.Second)
		require.NoError(t, err)
		cancel, err := from.SendAfter(pid, "never", time.Second)
		require.NoError(t, err)
		assert.True(t, cancel())
		assert.False(t, cancel())
		assert.Equal(t, envelope{From: from.PID(), Message: "later"}, receive(t, to.inbox))
		assert.Equal(t, 2*time.Second, time.Since(started))

		_, err = from.SendAfter(pid, "from the dead", time.Second)
		require.NoError(t, err)
		require.NoError(t, node.SendExit(from.PID(), gen.TerminateReasonNormal))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		assert.Empty(t, to.inbox)
	})
}

func TestNames(t *testing.T) {
	node := startNode(t)
	a, pid := spawn(t, node, newActor())
	b, other := spawn(t, node, newActor())
	require.NoError(t, a.RegisterName("name"))
	assert.Equal(t, gen.Atom("name"), a.Name())
	assert.ErrorIs(t, b.RegisterName("name"), gen.ErrTaken)
	assert.ErrorIs(t, a.RegisterName("second"), gen.ErrTaken)
	_, err := node.SpawnRegister("name", factory(newActor()), gen.ProcessOptions{})
	assert.ErrorIs(t, err, gen.ErrTaken)
	_, err = node.SpawnRegister("", factory(newActor()), gen.ProcessOptions{})
	assert.ErrorIs(t, err, gen.ErrIncorrect)
	_, err = a.SpawnRegister(gen.Atom(strings.Repeat("n", 256)), factory(newActor()), gen.ProcessOptions{})
	assert.ErrorIs(t, err, gen.ErrAtomTooLong)

	owner, err := node.UnregisterName("name")
	require.NoError(t, err)
	assert.Equal(t, pid, owner)
	_, err = node.UnregisterName("name")
	assert.ErrorIs(t, err, gen.ErrNameUnknown)
	assert.ErrorIs(t, a.UnregisterName(), gen.ErrNameUnknown)
	require.NoError(t, node.RegisterName("name", other), "a free name can be had again")
	assert.Equal(t, gen.Atom("name"), b.Name())

	require.NoError(t, a.MonitorPID(other))
	require.NoError(t, a.Monitor("name"))
	require.NoError(t, node.SendExit(other, gen.TerminateReasonNormal))
	assert.IsType(t, gen.MessageDownProcessID{}, receive(t, a.inbox).Message)
	assert.IsType(t, gen.MessageDownPID{}, receive(t, a.inbox).Message)
	require.NoError(t, a.RegisterName("name"), "the end frees the name before it is told")
	require.NoError(t, a.UnregisterName())

	child := newActor()
	_, err = a.SpawnRegister("name", factory(child), gen.ProcessOptions{})
	require.NoError(t, err)
	assert.Equal(t, a.PID(), child.Parent())
	require.NoError(t, node.Send("name", "hello"))
	assert.Equal(t, "hello", receive(t, child.inbox).Message)
}

func TestAliases(t *testing.T) {
	node := startNode(t)
	a, _ := spawn(t, node, newActor())
	first, err := a.CreateAlias()
	require.NoError(t, err)
	second, err := a.CreateAlias()
	require.NoError(t, err)
	assert.NotEqual(t, first, second)
	assert.ElementsMatch(t, []gen.Alias{first, second}, a.Aliases())
	require.NoError(t, a.DeleteAlias(first))
	assert.ErrorIs(t, a.DeleteAlias(first), gen.ErrAliasUnknown)
	assert.Equal(t, []gen.Alias{second}, a.Aliases())
	assert.ErrorIs(t, node.Send(first, 1), gen.ErrProcessTerminated)
	require.NoError(t, node.Send(second, 1))
	receive(t, a.inbox)
	_, err = a.InspectMeta(second)
	assert.ErrorIs(t, err, gen.ErrMetaUnknown, "an alias of a process is no meta process")
}

func TestSplitHandle(t *testing.T) {
	node := startNode(t)
	a := newActor()
	pid, err := node.SpawnRegister("name", factory(a), gen.ProcessOptions{})
	require.NoError(t, err)
	alias, err := a.CreateAlias()
	require.NoError(t, err)
	from, me := spawn(t, node, newActor())
	assert.False(t, a.SplitHandle())
	require.NoError(t, from.Send(gen.Atom("name"), 0))
	assert.Equal(t, envelope{From: me, Message: 0}, receive(t, a.inbox))

	within(t, a, func() { a.SetSplitHandle(true) })
	assert.True(t, a.SplitHandle())
	require.NoError(t, from.Send(pid, 1))
	require.NoError(t, from.Send("name", 2))
	require.NoError(t, from.Send(alias, 3))
	assert.Equal(t, envelope{From: me, Message: 1}, receive(t, a.inbox))
	assert.Equal(t, envelope{From: me, Name: "name", Message: 2}, receive(t, a.inbox))
	assert.Equal(t, envelope{From: me, Alias: alias, Message: 3}, receive(t, a.inbox))
	within(t, from, func() {
		for to, want := range map[any]any{pid: "request", gen.Atom("name"): gen.Atom("name"), alias: alias} {
			got, err := from.Call(to, "request")
			assert.NoError(t, err)
			assert.Equal(t, want, got)
		}
	})
}

func TestProcessInfo(t *testing.T) {
	node := startNode(t)
	a := newActor()
	pid, err := node.SpawnRegister("name", factory(a), gen.ProcessOptions{})
	require.NoError(t, err)
	alias, err := a.SpawnMeta(newMeta(), gen.MetaOptions{})
	require.NoError(t, err)
	within(t, a, func() {
		assert.NoError(t, a.Send(pid, "itself"))
		info, err := a.Info()
		assert.NoError(t, err)
		assert.Equal(t, gen.ProcessInfo{
			PID: pid, Name: "name", Behavior: "ergo_test.actor", MessagesIn: 2, MessagesOut: 1,
			State: gen.ProcessStateRunning, Metas: []gen.Alias{alias},
		}, info)
	})
	receive(t, a.inbox)
	eventually(t, func() bool {
		state, err := node.ProcessState(pid)
		return err == nil && state == gen.ProcessStateSleep
	})
	info, err := node.ProcessInfo(pid)
	require.NoError(t, err)
	assert.EqualValues(t, 2, info.MessagesIn)
	_, err = node.ProcessInfo(gen.PID{})
	assert.ErrorIs(t, err, gen.ErrProcessUnknown)
	_, err = node.ProcessState(gen.PID{})
	assert.ErrorIs(t, err, gen.ErrProcessUnknown)
	assert.Same(t, a, a.Behavior())
}

// No process waits for the callbacks of others, however many of them block, also where the messages
// were sent before any of them began.
func TestBlockedCallbacksHoldNobodyUp(t *testing.T) {
	node := startNode(t)
	const count = 300
	for range 2 { // with new goroutines, then with some that stayed
		gates := make([]*gate, count)
		for i := range gates {
			_, pid := spawn(t, node, newActor())
			gates[i] = newGate()
			t.Cleanup(gates[i].open)
			require.NoError(t, node.Send(pid, gates[i].task()))
		}
		for _, g := range gates {
			receive(t, g.entered)
		}
		for _, g := range gates {
			g.open()
		}
	}
}

// A process without messages owns no goroutine, and a meta process only that of its
// Start; those that were kept for the next message are let go when nothing comes.
func TestIdleProcessesOwnNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	node := startNode(t)
	const count, metas = 1000, 100
	actors := make([]*actor, count)
	for i := range actors {
		actors[i], _ = spawn(t, node, newActor())
	}
	connections := make([]*meta, metas)
	for i := range connections {
		connections[i] = newMeta()
		_, err := actors[i].SpawnMeta(connections[i], gen.MetaOptions{})
		require.NoError(t, err)
	}
	for _, a := range actors {
		require.NoError(t, node.Send(a.PID(), 1))
	}
	for _, m := range connections {
		require.NoError(t, node.Send(m.ID(), 1))
	}
	for _, a := range actors {
		receive(t, a.inbox)
	}
	for _, m := range connections {
		receive(t, m.inbox)
	}
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+metas })
}

func TestKill(t *testing.T) {
	node := startNode(t)
	a := newActor()
	pid, err := node.SpawnRegister("name", factory(a), gen.ProcessOptions{})
	require.NoError(t, err)
	g := hold(t, node, pid)
	require.NoError(t, node.Send(pid, "waiting"))
	require.NoError(t, node.Kill(pid))
	assert.ErrorIs(t, node.Send(pid, 1), gen.ErrProcessTerminated, "unreachable at once")
	assert.ErrorIs(t, node.Send("name", 1), gen.ErrProcessTerminated)
	g.open()
	assert.Equal(t, gen.TerminateReasonKill, receive(t, a.reasons))
	assert.Empty(t, a.inbox, "what waited is dropped")

	idle, pid := spawn(t, node, newActor())
	require.NoError(t, node.Kill(pid))
	assert.Equal(t, gen.TerminateReasonKill, receive(t, idle.reasons))
}

func TestTerminateMaySend(t *testing.T) {
	node := startNode(t)
	to, pid := spawn(t, node, newActor())
	a, _ := spawn(t, node, newActor())
	a.end = func(error) {
		assert.Equal(t, gen.ProcessStateTerminated, a.State())
		assert.NoError(t, a.Send(pid, "last words"))
		_, err := a.Call(pid, 1)
		assert.ErrorIs(t, err, gen.ErrProcessTerminated)
	}
	require.NoError(t, node.SendExit(a.PID(), gen.TerminateReasonNormal))
	assert.Equal(t, gen.TerminateReasonNormal, receive(t, a.reasons), "nil means normal")
	assert.Equal(t, "last words", receive(t, to.inbox).Message)
}
