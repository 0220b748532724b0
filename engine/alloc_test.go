//go:build !race

package ergo_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
)

// echo tells that it got a message.
type echo struct {
	act.Actor
	got chan struct{}
}

func (e *echo) HandleMessage(gen.PID, any) error {
	e.got <- struct{}{}
	return nil
}

func (e *echo) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) { return request, nil }

type metaEcho struct {
	*metaSink
	got chan struct{}
}

func (e *metaEcho) HandleMessage(gen.PID, any) error {
	e.got <- struct{}{}
	return nil
}

// A send allocates the message and, for a process that is not sent to by its PID, what it was sent
// to. Handling it allocates nothing more. A socket's reads become sends.
func TestSendAllocates(t *testing.T) {
	node := startNode(t)
	from, _ := spawn(t, node, &sink{})
	e := &echo{got: make(chan struct{})}
	pid, err := node.SpawnRegister("echo", factory(e), gen.ProcessOptions{MailboxSize: 100})
	require.NoError(t, err)
	alias, err := e.CreateAlias()
	require.NoError(t, err)
	m := newMetaSink()
	_, err = from.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	me := &metaEcho{metaSink: newMetaSink(), got: e.got}
	metaAlias, err := from.SpawnMeta(me, gen.MetaOptions{})
	require.NoError(t, err)
	message, to := any("message"), any(pid)

	for name, send := range map[string]func() error{
		"Send":                 func() error { return from.Send(to, message) },
		"SendPID":              func() error { return from.SendPID(pid, message) },
		"SendProcessID":        func() error { return from.SendProcessID(gen.ProcessID{Name: "echo"}, message) },
		"SendAlias to process": func() error { return from.SendAlias(alias, message) },
		"SendAlias to meta":    func() error { return from.SendAlias(metaAlias, message) },
		"Send from meta":       func() error { return m.Send(to, message) },
	} {
		allocs := testing.AllocsPerRun(1000, func() {
			if err := send(); err != nil {
				t.Error(err)
				return
			}
			<-e.got
		})
		assert.LessOrEqual(t, allocs, 2.0, name)
	}
}

func TestCallAllocates(t *testing.T) {
	node := startNode(t)
	_, pid := spawn(t, node, &echo{})
	caller, _ := spawn(t, node, newActor())
	request := any("request")
	within(t, caller, func() {
		allocs := testing.AllocsPerRun(1000, func() {
			if _, err := caller.CallPID(pid, request, 5); err != nil {
				t.Error(err)
			}
		})
		assert.LessOrEqual(t, allocs, 6.0)
	})
}
