package ergo_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"
)

func TestCall(t *testing.T) {
	node := startNode(t)
	callee := newActor()
	pid, err := node.SpawnRegister("callee", factory(callee), gen.ProcessOptions{})
	require.NoError(t, err)
	alias, err := callee.CreateAlias()
	require.NoError(t, err)
	caller, _ := spawn(t, node, newActor())
	within(t, caller, func() {
		for _, to := range []any{pid, alias, gen.ProcessID{Name: "callee"}, gen.Atom("callee"), "callee"} {
			got, err := caller.Call(to, "request")
			assert.NoError(t, err)
			assert.Equal(t, "request", got)
		}
		for _, do := range []func() (any, error){
			func() (any, error) { return caller.CallWithTimeout(pid, 1, 1) },
			func() (any, error) { return caller.CallPID(pid, 1, 0) },
			func() (any, error) { return caller.CallProcessID(gen.ProcessID{Name: "callee"}, 1, 1) },
			func() (any, error) { return caller.CallAlias(alias, 1, -1) },
		} {
			got, err := do()
			assert.NoError(t, err)
			assert.Equal(t, 1, got)
		}
		_, err := caller.Call(caller.PID(), 1)
		assert.ErrorIs(t, err, gen.ErrNotAllowed, "itself")
	})
	for state := gen.ProcessStateRunning; state != gen.ProcessStateSleep; {
		state, err = node.ProcessState(caller.PID())
		require.NoError(t, err)
	}
	_, err = caller.Call(pid, 1)
	assert.ErrorIs(t, err, gen.ErrNotAllowed, "not from elsewhere than its own callbacks")
}

func TestCallInInit(t *testing.T) {
	node := startNode(t)
	_, pid := spawn(t, node, newActor())
	a := newActor()
	a.init = func() error {
		got, err := a.Call(pid, "early")
		assert.Equal(t, "early", got)
		assert.Equal(t, gen.ProcessStateInit, a.State())
		return err
	}
	spawn(t, node, a)
}

func TestCallTimesOutAndLateAnswerIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := startNode(t)
		callee, pid := spawn(t, node, newActor())
		type asked struct {
			from gen.PID
			ref  gen.Ref
		}
		calls := make(chan asked, 10)
		callee.call = func(from gen.PID, ref gen.Ref, request any) (any, error) {
			if request == "answer" {
				return "answered", nil
			}
			calls <- asked{from, ref}
			return nil, nil
		}
		caller, _ := spawn(t, node, newActor())
		for name, c := range map[string]struct {
			do   func() (any, error)
			want time.Duration
		}{
			"default":  {func() (any, error) { return caller.Call(pid, 1) }, time.Duration(gen.DefaultRequestTimeout) * time.Second},
			"zero":     {func() (any, error) { return caller.CallPID(pid, 1, 0) }, time.Duration(gen.DefaultRequestTimeout) * time.Second},
			"negative": {func() (any, error) { return caller.CallPID(pid, 1, -3) }, time.Duration(gen.DefaultRequestTimeout) * time.Second},
			"two":      {func() (any, error) { return caller.CallWithTimeout(pid, 1, 2) }, 2 * time.Second},
		} {
			within(t, caller, func() {
				started := time.Now()
				_, err := c.do()
				assert.ErrorIs(t, err, gen.ErrTimeout, name)
				assert.Equal(t, c.want, time.Since(started), name)

				late := <-calls
				assert.ErrorIs(t, callee.SendResponse(late.from, late.ref, "late"), gen.ErrResponseIgnored)
				got, err := caller.Call(pid, "answer")
				assert.NoError(t, err)
				assert.Equal(t, "answered", got, "a late answer answers no other call")
			})
		}
		assert.Empty(t, caller.inbox)
	})
}

// A blocked call blocks its own process only, and shows as such.
func TestCallBlocksOnlyItsProcess(t *testing.T) {
	node := startNode(t)
	callee, pid := spawn(t, node, newActor())
	refs := make(chan gen.Ref, 1)
	callee.call = func(from gen.PID, ref gen.Ref, request any) (any, error) {
		refs <- ref
		return nil, nil
	}
	caller, callerPID := spawn(t, node, newActor())
	result := make(chan any, 1)
	require.NoError(t, node.Send(callerPID, task(func() error {
		got, err := caller.Call(pid, 1)
		assert.NoError(t, err)
		result <- got
		_, err = caller.Call(pid, 2)
		result <- err
		return nil
	})))
	ref := receive(t, refs)
	state, err := node.ProcessState(callerPID)
	require.NoError(t, err)
	assert.Equal(t, gen.ProcessStateWaitResponse, state)
	within(t, callee, func() {}) // handles messages all the while
	wrong := ref
	wrong.ID[0]++
	assert.ErrorIs(t, callee.SendResponse(callerPID, wrong, 1), gen.ErrResponseIgnored)
	assert.ErrorIs(t, callee.SendResponse(callerPID, gen.Ref{}, 1), gen.ErrResponseIgnored)
	assert.ErrorIs(t, callee.SendResponse(gen.PID{}, ref, 1), gen.ErrProcessUnknown)
	require.NoError(t, callee.SendResponse(callerPID, ref, "later"))
	assert.Equal(t, "later", receive(t, result))
	assert.ErrorIs(t, callee.SendResponse(callerPID, ref, "again"), gen.ErrResponseIgnored)

	require.NoError(t, callee.SendResponseError(callerPID, receive(t, refs), errTest))
	assert.Equal(t, errTest, receive(t, result))
}

func TestCallResultBeforeTheEnd(t *testing.T) {
	node := startNode(t)
	callee, pid := spawn(t, node, newActor())
	callee.call = func(gen.PID, gen.Ref, any) (any, error) { return "result", gen.TerminateReasonNormal }
	caller, _ := spawn(t, node, newActor())
	within(t, caller, func() {
		got, err := caller.Call(pid, 1)
		assert.NoError(t, err)
		assert.Equal(t, "result", got)
	})
	assert.Equal(t, gen.TerminateReasonNormal, receive(t, callee.reasons))
}

func TestKillInterruptsCall(t *testing.T) {
	node := startNode(t)
	callee, pid := spawn(t, node, newActor())
	called := make(chan struct{}, 1)
	callee.call = func(gen.PID, gen.Ref, any) (any, error) {
		called <- struct{}{}
		return nil, nil
	}
	caller, callerPID := spawn(t, node, newActor())
	errs := make(chan error, 2)
	require.NoError(t, node.Send(callerPID, task(func() error {
		_, err := caller.CallWithTimeout(pid, 1, 3600)
		errs <- err
		_, err = caller.CallWithTimeout(pid, 1, 3600)
		errs <- err
		return nil
	})))
	receive(t, called)
	require.NoError(t, node.Kill(callerPID))
	assert.ErrorIs(t, receive(t, errs), gen.TerminateReasonKill)
	assert.ErrorIs(t, receive(t, errs), gen.TerminateReasonKill, "nor does a killed process wait again")
	assert.Equal(t, gen.TerminateReasonKill, receive(t, caller.reasons))
}

// Answers race timeouts: a call ends once, with one or the other.
func TestAnswerRacesTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := startNode(t)
		callee, pid := spawn(t, node, newActor())
		callee.call = func(from gen.PID, ref gen.Ref, request any) (any, error) {
			time.AfterFunc(time.Second, func() { _ = callee.SendResponse(from, ref, request) })
			return nil, nil
		}
		caller, _ := spawn(t, node, newActor())
		for i := range 200 {
			within(t, caller, func() {
				got, err := caller.CallWithTimeout(pid, i, 1)
				if err != nil {
					assert.ErrorIs(t, err, gen.ErrTimeout)
					return
				}
				assert.Equal(t, i, got)
			})
		}
	})
}

func TestInspect(t *testing.T) {
	node := startNode(t)
	a, pid := spawn(t, node, newActor())
	m := newMeta()
	alias, err := a.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	from, _ := spawn(t, node, newActor())
	within(t, from, func() {
		got, err := from.Inspect(pid, "x", "y")
		assert.NoError(t, err)
		assert.Equal(t, map[string]string{"kind": "actor", "x": "asked", "y": "asked"}, got)
		got, err = from.InspectMeta(alias, "z")
		assert.NoError(t, err)
		assert.Equal(t, map[string]string{"kind": "meta", "z": "asked"}, got)
		_, err = from.Inspect(from.PID())
		assert.ErrorIs(t, err, gen.ErrNotAllowed)
		_, err = from.InspectMeta(gen.Alias{})
		assert.ErrorIs(t, err, gen.ErrMetaUnknown)
	})
	within(t, a, func() {
		_, err := a.InspectMeta(alias)
		assert.NoError(t, err, "its own meta process")
	})
}
