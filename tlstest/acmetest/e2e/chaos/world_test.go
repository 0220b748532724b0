//go:build linux

package chaos

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

const (
	publicName = "www.example.test"

	// poll is the PollInterval of the servers, and so how long a change without an event takes.
	poll = time.Second

	// soon is how long after the end of a fault the new set is served, where nothing is said of the
	// row. It is the poll, the time that files have to stay the same, the time that a client takes
	// to look again, and room for a busy machine.
	soon = poll + 3*time.Second
)

// world is a server, its files, its clients and one fault.
type world struct {
	t     *testing.T
	row   row
	ca    *tlstest.CA
	name  string      // in the certificates of the files
	peer  *tls.Config // of all clients
	dir   string      // where the operator writes
	setup setup
	attr  syscall.SysProcAttr // of the server's process
	front []string            // the command in front of it that brings it where it is to run
	*process

	public *tls.Config // of clients of publicName, if ACME is what serves it

	// more is what a fault leaves on purpose: descriptors and goroutines.
	more int

	atRest   report
	files    int // descriptors at rest
	traffic  traffic
	tolerant atomic.Bool // connections may break, as long as TCP breaks them
}

// newWorld makes the world of one fault, in a namespace for its network and with files that nobody
// serves yet.
func newWorld(t *testing.T, fault string) *world {
	t.Helper()
	if *faults == "" {
		t.Skip("run by make chaos and make chaos-short")
	}
	t.Parallel()
	w := &world{t: t, row: row{fault: fault}, name: publicName, ca: tlstest.NewCA(t), dir: t.TempDir()}
	w.peer = w.ca.MutualClientConfig(t, publicName, tlstest.Leaf{Usage: tlstest.ClientOnly, NotBefore: time.Now().Add(-48 * time.Hour)})
	w.traffic.quit = make(chan struct{})
	t.Cleanup(func() {
		switch {
		case t.Failed():
			w.row.meanwhile = "FAILED"
		case t.Skipped() && w.row.meanwhile == "":
			w.row.meanwhile = "SKIPPED, since a program is not installed"
		}
		w.row.report()
	})
	if os.Getenv(noSandbox) == "" {
		loopback(t)
	}
	w.setup = setup{Addr: fmt.Sprintf("127.231.0.%d:7000", worlds.Add(1)), Dir: w.dir, Poll: poll}
	return w
}

// worlds counts them: each server has an address of its own, that it keeps when it is started
// again.
var worlds atomic.Int32

// mayMount skips the test where nothing can be mounted or set up without harm to others.
func (w *world) mayMount() {
	w.t.Helper()
	if why := os.Getenv(noSandbox); why != "" {
		w.forbidden("namespaces", fmt.Errorf("%s", why))
	}
}

// forbidden skips the test because of the kernel or the sandbox that it runs in, and says so in the
// table.
func (w *world) forbidden(what string, err error) {
	w.t.Helper()
	w.row.meanwhile = fmt.Sprintf("SKIPPED, since this machine's kernel or sandbox gives no %s: %s", what, strings.Join(strings.Fields(err.Error()), " "))
	w.t.Skip(w.row.meanwhile)
}

var loopbackUp sync.Once

func loopback(t *testing.T) {
	t.Helper()
	ip := needs.Program(t, "ip")
	loopbackUp.Do(func() { require.NoError(t, exec.Command(ip, "link", "set", "lo", "up").Run()) })
}

func sentence(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// command runs a program to its end, or gives what it said.
func command(name string, args ...string) error {
	output, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, output)
	}
	return nil
}

// mount mounts something until the end of the test.
func (w *world) mount(args ...string) {
	w.t.Helper()
	w.mayMount()
	at := args[len(args)-1]
	if err := command(needs.Program(w.t, "mount"), args...); err != nil {
		w.forbidden("mount "+strings.Join(args[:len(args)-1], " "), err)
	}
	w.t.Cleanup(func() { syscall.Unmount(at, syscall.MNT_DETACH) })
}

// issue makes a pair that clients may meet from now on.
func (w *world) issue() *tlstest.Pair {
	pair := w.ca.Issue(w.t, tlstest.Leaf{Names: []string{w.name}})
	w.traffic.allow(pair.Leaf)
	return pair
}

func (w *world) contents(pair *tlstest.Pair) map[string][]byte {
	return map[string][]byte{"server.crt": pair.CertPEM, "server.key": pair.KeyPEM, "clients.pem": w.ca.PEM()}
}

// rotate replaces the files with those of a new pair.
func (w *world) rotate() *tlstest.Pair {
	w.t.Helper()
	pair := w.issue()
	require.NoError(w.t, tlstest.RenameOver(w.dir, w.contents(pair), nil))
	return pair
}

// begin starts the server on a first set, waits until it is at rest, and lets the clients come.
func (w *world) begin() {
	w.t.Helper()
	w.rotate()
	w.beginWith()
}

// beginWith is begin on the files that are there.
func (w *world) beginWith() {
	w.t.Helper()
	w.process = w.launch(w.front...)
	first := w.next()
	require.Empty(w.t, first.Err)
	require.NoError(w.t, w.traffic.visit(w), "the first visitor, who warms it up")
	w.atRest = w.await("rest", 20*time.Second, func(r report) bool { return r.Stats.Connections+r.Stats.Establishing == 0 })
	w.atRest.Heap = w.ask("collect").Heap
	w.files = len(w.descriptors())
	for range 3 { // the manager may have been reading
		pause()
		w.files = min(w.files, len(w.descriptors()))
	}
	w.traffic.start(w)
}

// await asks the server for reports until one is as wanted.
func (w *world) await(what string, within time.Duration, wanted func(report) bool) report {
	w.t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		r := w.ask("status")
		if wanted(r) {
			return r
		}
		if time.Now().After(deadline) {
			require.Fail(w.t, "not in time: "+what, "%+v\nmeta: %+v\n%d goroutines\n%s", r.Status, r.Stats, r.Goroutines, &w.log)
		}
	}
}

// visible waits until the fault can be seen by who looks at events, Status and Stats.
func (w *world) visible(as string, wanted func(report) bool) {
	w.t.Helper()
	w.await(as, 20*time.Second, wanted)
	if w.row.visible != "" {
		as = w.row.visible + "; " + as
	}
	w.row.visible = as
}

// served measures how long it takes until clients get a pair.
func (w *world) served(pair *tlstest.Pair, within time.Duration) {
	w.t.Helper()
	took := w.traffic.awaitLeaf(w.t, pair.Leaf, within+20*time.Second)
	w.arrived(took, within)
}

func (w *world) arrived(took, within time.Duration) {
	w.t.Helper()
	assert.LessOrEqual(w.t, took, within, "the new set came too late")
	w.row.after = fmt.Sprintf("%.1f s (of %v)", took.Seconds(), within)
}

// finish sends the clients home and looks for what the server has lost.
func (w *world) finish() {
	w.t.Helper()
	w.traffic.stop()
	w.row.meanwhile = w.traffic.String()
	w.await("rest as before", 20*time.Second, func(r report) bool {
		return r.Stats.Connections+r.Stats.Establishing == 0 && r.Goroutines <= w.atRest.Goroutines+w.more && len(w.descriptors()) <= w.files+w.more
	})
	r := w.ask("collect")
	const noise = 4 << 20
	assert.Less(w.t, r.Heap, w.atRest.Heap+noise, "memory is lost")
	if !w.tolerant.Load() {
		assert.Equal(w.t, r.Stats.BytesIn, r.Stats.BytesOut, "what came in went out again")
	}
	assert.Empty(w.t, w.end().Err)
}
