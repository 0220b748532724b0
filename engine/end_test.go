package ergo_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
)

// failing ends in the callback whose name it has.
type failing struct {
	act.Actor
	in      string
	with    func() error
	reasons chan error
}

func (f *failing) fail(callback string) error {
	if f.in == callback {
		return f.with()
	}
	return nil
}

func (f *failing) HandleMessage(gen.PID, any) error { return f.fail("HandleMessage") }
func (f *failing) HandleCall(gen.PID, gen.Ref, any) (any, error) {
	return nil, f.fail("HandleCall")
}
func (f *failing) HandleMessageName(gen.Atom, gen.PID, any) error {
	return f.fail("HandleMessageName")
}
func (f *failing) HandleMessageAlias(gen.Alias, gen.PID, any) error {
	return f.fail("HandleMessageAlias")
}
func (f *failing) HandleCallName(gen.Atom, gen.PID, gen.Ref, any) (any, error) {
	return nil, f.fail("HandleCallName")
}
func (f *failing) HandleCallAlias(gen.Alias, gen.PID, gen.Ref, any) (any, error) {
	return nil, f.fail("HandleCallAlias")
}
func (f *failing) HandleInspect(gen.PID, ...string) map[string]string {
	_ = f.fail("HandleInspect")
	return nil
}
func (f *failing) Terminate(reason error) {
	f.reasons <- reason
	_ = f.fail("Terminate")
}

func TestEveryCallbackEndsTheProcess(t *testing.T) {
	callbacks := map[string]func(from *actor, pid gen.PID, alias gen.Alias) error{
		"HandleMessage":      func(from *actor, pid gen.PID, _ gen.Alias) error { return from.Send(pid, 1) },
		"HandleMessageName":  func(from *actor, _ gen.PID, _ gen.Alias) error { return from.Send("name", 1) },
		"HandleMessageAlias": func(from *actor, _ gen.PID, alias gen.Alias) error { return from.Send(alias, 1) },
		"HandleCall":         func(from *actor, pid gen.PID, _ gen.Alias) error { return call(from, pid) },
		"HandleCallName":     func(from *actor, _ gen.PID, _ gen.Alias) error { return call(from, "name") },
		"HandleCallAlias":    func(from *actor, _ gen.PID, alias gen.Alias) error { return call(from, alias) },
		"HandleInspect": func(from *actor, pid gen.PID, _ gen.Alias) error {
			return from.Send(from.PID(), task(func() error {
				_, err := from.Inspect(pid)
				return err
			}))
		},
		"Terminate": func(from *actor, pid gen.PID, _ gen.Alias) error { return from.SendExit(pid, errTest) },
	}
	ways := map[string]struct {
		with func() error
		want error
	}{
		"error": {with: func() error { return errTest }, want: errTest},
		"panic": {with: func() error { panic("on purpose") }, want: gen.TerminateReasonPanic},
	}
	for callback, trigger := range callbacks {
		for way, w := range ways {
			if way == "error" && callback == "HandleInspect" {
				continue // it returns no error
			}
			t.Run(callback+"/"+way, func(t *testing.T) {
				log := &recorder{}
				node := startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{
					DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
					Loggers:       []gen.Logger{{Name: "recorder", Logger: log}},
				}})
				f := &failing{in: callback, with: w.with, reasons: make(chan error, 2)}
				f.SetSplitHandle(true)
				pid, err := node.SpawnRegister("name", factory(f), gen.ProcessOptions{})
				require.NoError(t, err)
				alias, err := f.CreateAlias()
				require.NoError(t, err)
				watcher, _ := spawn(t, node, newActor())
				require.NoError(t, watcher.MonitorPID(pid))
				caller, callerPID := spawn(t, node, newActor())
				require.NoError(t, trigger(caller, pid, alias))

				want := w.want
				if callback == "Terminate" {
					want = errTest // the reason of the end stays
				}
				assert.ErrorIs(t, receive(t, f.reasons), want)
				down := receive(t, watcher.inbox).Message.(gen.MessageDownPID)
				assert.Equal(t, pid, down.PID)
				assert.ErrorIs(t, down.Reason, want)
				assert.Empty(t, f.reasons, "Terminate runs once")
				require.NoError(t, node.Kill(callerPID)) // it may wait for a response
				receive(t, caller.reasons)
				if way == "panic" {
					assert.Contains(t, log.text(), "on purpose", "with its message")
					assert.Contains(t, log.text(), "end_test.go:", "and its place")
				}
			})
		}
	}
}

// call makes an actor call; the result does not matter.
func call(from *actor, to any) error {
	return from.Send(from.PID(), task(func() error {
		_, err := from.Call(to, 1)
		return err
	}))
}

func TestPanicPlace(t *testing.T) {
	for name, do := range map[string]func(){
		"explicit":  func() { panic("x") },
		"index":     func() { _ = []int{}[len(t.Name())] },
		"nil":       func() { *(*int)(nil) = 1 },
		"assertion": func() { _ = any(1).(string) },
	} {
		t.Run(name, func(t *testing.T) {
			log := &recorder{}
			node := startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{
				DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
				Loggers:       []gen.Logger{{Name: "recorder", Logger: log}},
			}})
			a, pid := spawn(t, node, newActor())
			require.NoError(t, node.Send(pid, task(func() error {
				do()
				return nil
			})))
			receive(t, a.reasons)
			assert.Regexp(t, `panic: .* at ergo\.services/ergo_test\.TestPanicPlace\.func\d+ \(.*end_test\.go:\d+\)`, log.text())
		})
	}
}

func TestEndIsLoggedAsFailure(t *testing.T) {
	for reason, logged := range map[error]bool{
		gen.TerminateReasonNormal:                            false,
		gen.TerminateReasonShutdown:                          false,
		fmt.Errorf("planned: %w", gen.TerminateReasonNormal): false,
		gen.TerminateReasonKill:                              true,
		errTest:                                              true,
	} {
		t.Run(reason.Error(), func(t *testing.T) {
			log := &recorder{}
			node := startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{
				DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
				Loggers:       []gen.Logger{{Name: "recorder", Logger: log}},
			}})
			a, pid := spawn(t, node, newActor())
			m := newMeta()
			alias := spawnMeta(t, a, m, gen.MetaOptions{})
			require.NoError(t, a.SendExitMeta(alias, reason))
			assert.Equal(t, reason, receive(t, m.reasons))
			require.NoError(t, node.SendExit(pid, reason))
			assert.Equal(t, reason, receive(t, a.reasons))
			node.Stop()
			if logged { // for the meta process, and for the process
				assert.Equal(t, strings.Repeat("[error] terminated: "+reason.Error()+"\n", 2), log.text())
			} else {
				assert.Empty(t, log.text())
			}
		})
	}
}

func TestTrapExit(t *testing.T) {
	node := startNode(t)
	parent, parentPID := spawn(t, node, newActor())
	trapping := newActor()
	trapping.init = func() error {
		trapping.SetTrapExit(true)
		return nil
	}
	pid, err := parent.Spawn(factory(trapping), gen.ProcessOptions{})
	require.NoError(t, err)
	assert.True(t, trapping.TrapExit())
	other, otherPID := spawn(t, node, newActor())

	require.NoError(t, other.SendExit(pid, gen.TerminateReasonShutdown))
	assert.Equal(t, gen.MessageExitPID{PID: otherPID, Reason: gen.TerminateReasonShutdown}, receive(t, trapping.inbox).Message)
	require.NoError(t, parent.SendExit(pid, errTest))
	assert.Equal(t, gen.MessageExitPID{PID: parentPID, Reason: errTest}, receive(t, trapping.inbox).Message)
	require.NoError(t, node.SendExit(pid, gen.TerminateReasonNormal))
	assert.Equal(t, gen.MessageExitPID{PID: node.PID(), Reason: gen.TerminateReasonNormal}, receive(t, trapping.inbox).Message)

	require.NoError(t, parent.SendExit(pid, gen.TerminateReasonShutdown))
	assert.Equal(t, gen.TerminateReasonShutdown, receive(t, trapping.reasons), "a shutdown from the parent is not trapped")
}

func TestExitOvertakesMessages(t *testing.T) {
	node := startNode(t)
	a, pid := spawn(t, node, newActor())
	g := hold(t, node, pid)
	require.NoError(t, node.SendWithPriority(pid, "before", gen.MessagePriorityHigh))
	require.NoError(t, node.SendExit(pid, errTest))
	g.open()
	assert.Equal(t, errTest, receive(t, a.reasons))
	assert.Empty(t, a.inbox)
}

func TestLinkIsOneWay(t *testing.T) {
	node := startNode(t)
	linker, _ := spawn(t, node, newActor())
	linked, linkedPID := spawn(t, node, newActor())
	require.NoError(t, linker.LinkPID(linkedPID))
	assert.ErrorIs(t, linker.Link(linkedPID), gen.ErrTargetExist)
	require.NoError(t, node.SendExit(linkedPID, errTest))
	receive(t, linked.reasons)
	assert.ErrorIs(t, receive(t, linker.reasons), errTest)

	linker, linkerPID := spawn(t, node, newActor())
	linked, linkedPID = spawn(t, node, newActor())
	require.NoError(t, linker.Link(linkedPID))
	require.NoError(t, node.SendExit(linkerPID, errTest))
	receive(t, linker.reasons)
	within(t, linked, func() {})
	assert.Empty(t, linked.reasons, "the linked one does not end with the linker")
}

func TestUnlinkAndTrappedLink(t *testing.T) {
	node := startNode(t)
	linker, _ := spawn(t, node, newActor())
	linked, linkedPID := spawn(t, node, newActor())
	m := newMeta()
	alias, err := linked.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	for _, target := range []any{linkedPID, alias} {
		assert.ErrorIs(t, linker.Unlink(target), gen.ErrTargetUnknown)
		require.NoError(t, linker.Link(target))
		require.NoError(t, linker.Unlink(target))
		require.NoError(t, linker.Link(target))
	}
	assert.ErrorIs(t, linker.UnlinkPID(linker.PID()), gen.ErrTargetUnknown)
	assert.ErrorIs(t, linker.LinkAlias(alias), gen.ErrTargetExist)
	require.NoError(t, linker.UnlinkAlias(alias))
	require.NoError(t, linker.LinkAlias(alias))
	within(t, linker, func() { linker.SetTrapExit(true) })

	require.NoError(t, linked.SendExitMeta(alias, errTest))
	assert.Equal(t, gen.MessageExitAlias{Alias: alias, Reason: errTest}, receive(t, linker.inbox).Message)
	require.NoError(t, node.SendExit(linkedPID, errTest))
	assert.Equal(t, gen.MessageExitPID{PID: linkedPID, Reason: errTest}, receive(t, linker.inbox).Message)

	for _, target := range []any{gen.Atom("name"), "name", gen.ProcessID{Name: "name"}, 42} {
		assert.ErrorIs(t, linker.Link(target), gen.ErrUnsupported)
		assert.ErrorIs(t, linker.Unlink(target), gen.ErrUnsupported)
	}
	assert.ErrorIs(t, linker.Link(linkedPID), gen.ErrProcessTerminated)
	assert.ErrorIs(t, linker.UnlinkPID(linkedPID), gen.ErrTargetUnknown, "a failed link leaves nothing")
}

func TestLinkAliasEndsTheLinker(t *testing.T) {
	node := startNode(t)
	linker, _ := spawn(t, node, newActor())
	m := newMeta()
	alias, err := linker.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	require.NoError(t, linker.LinkAlias(alias))
	m.starts <- errTest
	assert.ErrorIs(t, receive(t, linker.reasons), errTest)
}

func TestLinkOptions(t *testing.T) {
	node := startNode(t)
	t.Run("LinkParent", func(t *testing.T) {
		parent, parentPID := spawn(t, node, newActor())
		child, free := newActor(), newActor()
		_, err := parent.Spawn(factory(child), gen.ProcessOptions{LinkParent: true})
		require.NoError(t, err)
		_, err = parent.Spawn(factory(free), gen.ProcessOptions{})
		require.NoError(t, err)
		require.NoError(t, node.SendExit(parentPID, errTest))
		assert.ErrorIs(t, receive(t, child.reasons), errTest)
		within(t, free, func() {})
		assert.Empty(t, free.reasons, "children outlive their parent")
	})
	t.Run("LinkChild", func(t *testing.T) {
		parent, _ := spawn(t, node, newActor())
		child := newActor()
		childPID, err := parent.Spawn(factory(child), gen.ProcessOptions{LinkChild: true})
		require.NoError(t, err)
		assert.Equal(t, parent.PID(), child.Parent())
		assert.Equal(t, parent.Leader(), child.Leader())
		require.NoError(t, node.SendExit(childPID, errTest))
		assert.ErrorIs(t, receive(t, parent.reasons), errTest)
	})
	t.Run("failed child", func(t *testing.T) {
		parent, _ := spawn(t, node, newActor())
		child := newActor()
		child.init = func() error { return errTest }
		_, err := parent.Spawn(factory(child), gen.ProcessOptions{LinkChild: true, LinkParent: true})
		assert.ErrorIs(t, err, errTest)
		within(t, parent, func() {})
		assert.Empty(t, parent.reasons, "its error is the result of Spawn, no exit")
	})
	t.Run("node", func(t *testing.T) {
		spawnWith(t, node, newActor(), gen.ProcessOptions{LinkChild: true, LinkParent: true})
	})
}

func TestMonitor(t *testing.T) {
	node := startNode(t)
	watcher, _ := spawn(t, node, newActor())
	watched := newActor()
	pid, err := node.SpawnRegister("watched", factory(watched), gen.ProcessOptions{})
	require.NoError(t, err)
	alias, err := watched.CreateAlias()
	require.NoError(t, err)
	dropped, err := watched.CreateAlias()
	require.NoError(t, err)
	metaAlias, err := watched.SpawnMeta(newMeta(), gen.MetaOptions{})
	require.NoError(t, err)
	name := gen.ProcessID{Name: "watched", Node: node.Name()}

	targets := []any{pid, alias, dropped, metaAlias, name}
	for _, target := range targets {
		assert.ErrorIs(t, watcher.Demonitor(target), gen.ErrTargetUnknown)
		require.NoError(t, watcher.Monitor(target))
		assert.ErrorIs(t, watcher.Monitor(target), gen.ErrTargetExist)
		require.NoError(t, watcher.Demonitor(target))
		require.NoError(t, watcher.Monitor(target))
	}
	assert.ErrorIs(t, watcher.Monitor("watched"), gen.ErrTargetExist, "the same name in another form")
	assert.ErrorIs(t, watcher.Monitor(gen.Atom("watched")), gen.ErrTargetExist)
	assert.ErrorIs(t, watcher.MonitorPID(pid), gen.ErrTargetExist)
	assert.ErrorIs(t, watcher.MonitorAlias(alias), gen.ErrTargetExist)
	require.NoError(t, watcher.DemonitorPID(pid))
	require.NoError(t, watcher.DemonitorAlias(alias))
	require.NoError(t, watcher.MonitorPID(pid))
	require.NoError(t, watcher.MonitorAlias(alias))
	assert.ErrorIs(t, watcher.Monitor(42), gen.ErrUnsupported)
	assert.ErrorIs(t, watcher.Demonitor(42), gen.ErrUnsupported)
	assert.ErrorIs(t, watcher.Monitor("unknown"), gen.ErrProcessUnknown)
	assert.ErrorIs(t, watcher.MonitorPID(gen.PID{}), gen.ErrProcessUnknown)

	require.NoError(t, watched.DeleteAlias(dropped))
	assert.Equal(t, gen.MessageDownAlias{Alias: dropped, Reason: gen.ErrAliasUnknown}, receive(t, watcher.inbox).Message)

	require.NoError(t, node.SendExit(pid, errTest))
	var got []any
	for range 4 {
		got = append(got, receive(t, watcher.inbox).Message)
	}
	assert.ElementsMatch(t, []any{
		gen.MessageDownPID{PID: pid, Reason: errTest},
		gen.MessageDownAlias{Alias: alias, Reason: errTest},
		gen.MessageDownAlias{Alias: metaAlias, Reason: errTest},
		gen.MessageDownProcessID{ProcessID: name, Reason: errTest},
	}, got)
	for _, target := range targets {
		assert.ErrorIs(t, watcher.Demonitor(target), gen.ErrTargetUnknown)
	}
	assert.Empty(t, watcher.reasons, "a monitor does not end")
}

func TestMonitorUnregisteredName(t *testing.T) {
	node := startNode(t)
	watcher, _ := spawn(t, node, newActor())
	watched, _ := spawn(t, node, newActor())
	require.NoError(t, watched.RegisterName("name"))
	require.NoError(t, watcher.Monitor("name"))
	require.NoError(t, watched.UnregisterName())
	assert.Equal(t, gen.MessageDownProcessID{
		ProcessID: gen.ProcessID{Name: "name", Node: node.Name()}, Reason: gen.ErrNameUnknown,
	}, receive(t, watcher.inbox).Message)
}

// Whoever monitors a process while it ends gets an error or one message.
func TestMonitorRacesEnd(t *testing.T) {
	node := startNode(t)
	watcher, _ := spawn(t, node, newActor())
	for range 300 {
		_, pid := spawn(t, node, newActor())
		require.NoError(t, node.SendExit(pid, errTest))
		err := watcher.MonitorPID(pid)
		if err != nil {
			assert.ErrorIs(t, err, gen.ErrProcessTerminated)
			continue
		}
		assert.Equal(t, gen.MessageDownPID{PID: pid, Reason: errTest}, receive(t, watcher.inbox).Message)
	}
	assert.Empty(t, watcher.inbox)
}
