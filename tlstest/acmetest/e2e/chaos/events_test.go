//go:build linux

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// polling sees that the manager knows that its file events are not to be relied on.
func (w *world) polling() {
	w.t.Helper()
	w.visible("polling, Status.Polling", func(r report) bool { return r.happened(certmanager.Warning, "file events") && r.Status.Polling != "" })
}

// The user has no inotify instance, or no watch, left. The limits are those of a user namespace.
func TestInotifyExhausted(t *testing.T) {
	for limit, name := range map[string]string{"max_inotify_instances": "instances", "max_inotify_watches": "watches"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "inotify "+name+" exhausted")
			w.setup.Deny = limit
			w.attr.Cloneflags = syscall.CLONE_NEWUSER
			w.attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			w.attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
			w.more = 3 // descriptors and goroutines of fsnotify, which it gets later
			w.begin()
			w.polling()
			next := w.rotate()
			w.served(next, soon) // also while the fault lasts
			w.ask("allow %s", limit)
			next = w.rotate()
			w.served(next, soon)
			w.await("events again", 2*soon, func(r report) bool { return r.Status.Polling == "" })
			w.finish()
		})
	}
}

// The server stands still while more happens in the folder than the kernel keeps for it.
func TestQueueOverflow(t *testing.T) {
	w := newWorld(t, "inotify queue overflow")
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	require.NoError(t, err)
	most, err := strconv.Atoi(strings.TrimSpace(string(limit)))
	require.NoError(t, err)
	if most > 1<<17 {
		w.forbidden("overflow in sensible time", fmt.Errorf("fs.inotify.max_queued_events is %d", most))
	}
	w.begin()
	require.NoError(t, w.cmd.Process.Signal(syscall.SIGSTOP))
	defer w.cmd.Process.Signal(syscall.SIGCONT)
	path := filepath.Join(w.dir, "busy")
	for range most { // two events each
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		require.NoError(t, os.Remove(path))
	}
	next := w.rotate()
	require.NoError(t, w.cmd.Process.Signal(syscall.SIGCONT))
	w.served(next, soon)
	w.visible("polling, Status.Polling", func(r report) bool { return r.happened(certmanager.Warning, "overflow") })
	w.await("events again", 2*soon, func(r report) bool { return r.Status.Polling == "" })
	w.finish()
}

// What the server reads is a FUSE file system, over a folder in which the files change.
func TestFUSE(t *testing.T) {
	w := newWorld(t, "FUSE (bindfs): no events")
	w.mayMount()
	bindfs, at := needs.Program(t, "bindfs"), t.TempDir()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		w.forbidden("FUSE", err)
	}
	if err := command(bindfs, w.dir, at); err != nil {
		w.forbidden("FUSE", err)
	}
	t.Cleanup(func() { syscall.Unmount(at, syscall.MNT_DETACH) })
	w.setup.Dir = at
	w.begin()
	time.Sleep(2*time.Second + poll) // what happens while the watch begins is not looked for
	next := w.rotate()
	w.served(next, soon)
	w.polling()
	w.finish()
}

// What the server reads is an overlay. What is replaced through it is announced; what is written
// into the folder below is not.
func TestOverlay(t *testing.T) {
	w := newWorld(t, "overlay, written below: no events")
	base, merged := t.TempDir(), t.TempDir()
	w.mount("-t", "tmpfs", "tmpfs", base)
	upper, lower, work := filepath.Join(base, "upper"), filepath.Join(base, "lower"), filepath.Join(base, "work")
	for _, dir := range []string{upper, lower, work} {
		require.NoError(t, os.Mkdir(dir, 0o700))
	}
	first := w.issue() // in the lower folder at first
	require.NoError(t, tlstest.RenameOver(lower, w.contents(first), nil))
	w.mount("-t", "overlay", "-o", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work), "overlay", merged)
	w.setup.Dir, w.dir = merged, merged
	w.begin()
	next := w.rotate() // copied up
	w.served(next, soon)
	assert.Empty(t, w.ask("status").Status.Polling)

	time.Sleep(2*time.Second + poll) // a change within a second of another one's events counts as announced
	next = w.issue()
	require.NoError(t, tlstest.TruncateAndWrite(upper, w.contents(next), nil))
	w.served(next, soon)
	w.polling()
	w.finish()
}

// The files are mounted one by one, as containers do it: what is written into them comes without an
// event, and what takes their place outside does not come at all before they are mounted anew.
func TestFileBindMount(t *testing.T) {
	w := newWorld(t, "files bind-mounted one by one")
	at := t.TempDir()
	names := []string{"server.crt", "server.key", "clients.pem"}
	bind := func() {
		for _, name := range names {
			require.NoError(t, os.WriteFile(filepath.Join(at, name), nil, 0o600)) // the place to mount at
			w.mount("--bind", filepath.Join(w.dir, name), filepath.Join(at, name))
		}
	}
	w.rotate()
	bind()
	w.setup.Dir = at
	w.beginWith()
	time.Sleep(2*time.Second + poll) // what happens while the watch begins is not looked for
	next := w.issue()
	require.NoError(t, tlstest.TruncateAndWrite(w.dir, w.contents(next), nil))
	w.served(next, soon)
	w.polling()

	kept := w.ask("status").Status.Generation
	w.rotate() // renamed over
	time.Sleep(2 * poll)
	assert.Equal(t, kept, w.ask("status").Status.Generation, "what is mounted is the old file")
	next = w.rotate()
	for _, name := range names {
		require.NoError(t, syscall.Unmount(filepath.Join(at, name), syscall.MNT_DETACH))
	}
	bind()
	w.served(next, soon)
	w.finish()
}
