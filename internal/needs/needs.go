// Package needs tells tests where what they need is: outside programs, free ports, and corpora.
package needs

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// Program returns the path of a program. Where it is missing the test is skipped with the program's
// name, or fails in CI, which installs all of them.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatalf("%s is not installed, and CI skips nothing: add it to .ci/run", name)
	default:
		t.Skipf("%s is not installed", name)
	}
	return ""
}

// Long leaves a test to `make test-all`, which CI runs: it takes long, and other tests find most of
// what it can find.
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("not in -short")
	}
}

// lastPort begins elsewhere in each process.
var lastPort = func() *atomic.Int32 {
	p := new(atomic.Int32)
	p.Store(10000 + rand.Int32N(20000))
	return p
}()

// Port gives a TCP port that nobody listens on, for who can't choose one and say which. It is none
// of those that systems give to connections and to listeners on port 0 (from 32768), and none that
// it has given before, so that nobody takes it before it is used.
func Port(t testing.TB) uint16 {
	t.Helper()
	for range 1000 {
		port := lastPort.Add(1)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			listener.Close()
			return uint16(port)
		}
	}
	t.Fatal("no port is free")
	return 0
}

// Corpus fails a fuzz target whose committed corpus, testdata/fuzz/NAME, is gone: without it the
// target tries next to nothing where nobody fuzzes.
func Corpus(f *testing.F) {
	f.Helper()
	folder := filepath.Join("testdata", "fuzz", f.Name())
	if entries, err := os.ReadDir(folder); err != nil || len(entries) == 0 {
		f.Fatalf("the corpus in %s is gone: %v", folder, err)
	}
}
