package meta_test

import (
	"os"
	"testing"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// listening is a process with a server, as a supervisor starts it again. It fails at any message.
type listening struct {
	act.Actor
	options meta.TCPServerOptions
}

func (l *listening) Init(...any) error {
	server, err := meta.CreateTCPServer(l.options)
	if err == nil {
		_, err = l.SpawnMeta(server, gen.MetaOptions{})
	}
	return err
}

func (l *listening) HandleMessage(gen.PID, any) error { return gen.TerminateReasonPanic }

// restarter starts such a process again as soon as it hears of its end.
type restarter struct {
	act.Actor
	options meta.TCPServerOptions
	left    int
	done    chan error
}

func (r *restarter) start() error {
	pid, err := r.Spawn(func() gen.ProcessBehavior { return &listening{options: r.options} }, gen.ProcessOptions{})
	if err != nil {
		return err
	}
	if err := r.MonitorPID(pid); err != nil {
		return err
	}
	return r.Send(pid, "fail")
}

func (r *restarter) HandleMessage(_ gen.PID, message any) error {
	if _, ended := message.(gen.MessageDownPID); ended {
		r.left--
	}
	if r.left == 0 {
		r.done <- nil
	} else if err := r.start(); err != nil {
		r.done <- err
	}
	return nil
}

// The end of a process is told before its server has closed its socket.
func TestStartedAgainOnItsAddress(t *testing.T) {
	free := newListener(t)
	free.Close()
	dir, err := os.MkdirTemp("", "unix") // t.TempDir can be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, options := range map[string]meta.TCPServerOptions{
		"port": {Host: "127.0.0.1", Port: portOf(t, free.Addr().String())},
		"unix": {UnixPath: dir + "/socket"},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan error, 1)
			h := newHost(t)
			pid, err := h.Spawn(func() gen.ProcessBehavior {
				return &restarter{options: options, left: 50, done: done}
			}, gen.ProcessOptions{})
			require.NoError(t, err)
			require.NoError(t, h.Send(pid, "start"))
			require.NoError(t, <-done)
		})
	}
}
