//go:build linux

package chaos

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
)

// inject makes system calls of the server fail until stop.
func (w *world) inject(calls, errno string, more ...string) (stop func()) {
	w.t.Helper()
	var said logBuffer
	args := append([]string{"-f", "-o", "/dev/null", "-e", "trace=" + calls, "-e", "inject=" + calls + ":error=" + errno, "-p", strconv.Itoa(w.cmd.Process.Pid)}, more...)
	cmd := exec.Command(needs.Program(w.t, "strace"), args...)
	cmd.Stderr, cmd.SysProcAttr = &said, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(w.t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		cmd.Process.Signal(syscall.SIGINT) // it lets go of the server
		ended <- <-ended
	}
	w.t.Cleanup(stop)
	for !strings.Contains(said.String(), "attached") {
		select {
		case err := <-ended:
			ended <- err
			w.forbidden("ptrace for strace", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	return stop
}

// The server can open nothing more: no connection, and no file.
func TestEMFILE(t *testing.T) {
	w := newWorld(t, "EMFILE: the process's limit of descriptors")
	w.begin()
	w.await("its clients", 10*time.Second, func(r report) bool { return r.Stats.Connections >= stayers })
	var limit unix.Rlimit
	require.NoError(t, unix.Prlimit(w.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &limit))
	none := limit
	none.Cur = 4 // standard streams and the poller: all numbers below are taken, and who has one above keeps it
	require.NoError(t, unix.Prlimit(w.cmd.Process.Pid, unix.RLIMIT_NOFILE, &none, nil))
	next := w.rotate()
	w.outOfDescriptors(syscall.EMFILE)
	require.NoError(t, unix.Prlimit(w.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil))
	w.served(next, soon)
	w.finish()
}

// The same for the whole machine.
func TestENFILE(t *testing.T) {
	w := newWorld(t, "ENFILE: the machine's limit of descriptors")
	w.begin()
	w.await("its clients", 10*time.Second, func(r report) bool { return r.Stats.Connections >= stayers })
	stop := w.inject("accept4,openat", "ENFILE")
	next := w.rotate()
	w.outOfDescriptors(syscall.ENFILE)
	stop()
	w.served(next, soon)
	w.finish()
}

func (w *world) outOfDescriptors(errno syscall.Errno) {
	w.t.Helper()
	w.visible("rejected, Status.LastError, Stats.AcceptErrors", func(r report) bool {
		return r.happened(certmanager.Rejected, errno.Error()) && strings.Contains(r.Status.LastError, errno.Error()) && r.Stats.AcceptErrors > 0
	})
	before := w.traffic.echoed.Load()
	w.await("those who stay", 10*time.Second, func(report) bool { return w.traffic.echoed.Load() > before+10*stayers })
}
