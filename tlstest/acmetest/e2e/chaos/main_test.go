//go:build linux

// Package chaos breaks what a server stands on (the network, descriptors, disks, file events, the
// clock, the process itself, Redis) and watches it from outside, as its clients do. Every server is
// a process of its own, this test binary in another role.
//
// `make chaos` and `make chaos-short` run it. Without the flag -faults nothing runs: the tests
// measure times, and want the machine for themselves.
package chaos

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"go.uber.org/goleak"
)

var faults = flag.String("faults", "", `"short" or "all"; empty runs nothing`)

// role says what this process is. The tests run in a process of their own inside of namespaces of
// its own, so that no mount, interface or rule outlives it or is seen by anybody else.
const (
	role       = "ERGOTLS_CHAOS_ROLE"
	inSandbox  = "sandbox"
	asServer   = "server"
	noSandbox  = "ERGOTLS_CHAOS_NO_SANDBOX" // why there are no namespaces
	setupValue = "ERGOTLS_CHAOS_SETUP"
)

func TestMain(m *testing.M) {
	if os.Getenv(role) == asServer {
		serve()
		return
	}
	flag.Parse()
	switch {
	case *faults == "":
		os.Exit(m.Run())
	case os.Getenv(role) == "":
		os.Exit(runInSandbox())
	}
	flag.Set("test.parallel", "6") // they mostly wait
	goleak.VerifyTestMain(reporting{m})
}

func runInSandbox() int {
	flags := uintptr(syscall.CLONE_NEWNS | syscall.CLONE_NEWNET)
	run := func(env string, attr *syscall.SysProcAttr) error {
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = os.Stdout, os.Stderr, attr
		cmd.Env = append(os.Environ(), role+"="+inSandbox, env)
		return cmd.Run()
	}
	attr := &syscall.SysProcAttr{Unshareflags: flags, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err := run(noSandbox+"=", attr)
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		err = run(noSandbox+"="+err.Error(), &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL})
	}
	if err != nil {
		return 1
	}
	return 0
}

// row is a line of the table.
type row struct {
	fault, meanwhile, after, visible string
}

var table struct {
	mu   sync.Mutex
	rows []row
}

func (r row) report() {
	table.mu.Lock()
	defer table.mu.Unlock()
	table.rows = append(table.rows, r)
}

// reporting prints the table after the tests.
type reporting struct{ *testing.M }

func (r reporting) Run() int {
	began := time.Now()
	code := r.M.Run()
	slices.SortStableFunc(table.rows, func(a, b row) int { return cmp.Compare(a.fault, b.fault) })
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(out, "\nfault\tmeanwhile\tend of the fault to the new set\tvisible as\n")
	for _, row := range table.rows {
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", row.fault, row.meanwhile, row.after, row.visible)
	}
	out.Flush()
	fmt.Printf("%d faults in %v\n\n", len(table.rows), time.Since(began).Round(time.Second))
	return code
}
