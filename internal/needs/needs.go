// Package needs tells tests where what they need is: outside programs, and corpora.
package needs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Program gives the path of a program. Where it is missing the test is skipped with the program's name, or fails in
// CI, which installs all of them.
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

// Corpus fails a fuzz target whose committed corpus, testdata/fuzz/NAME, is gone: without it the target tries next to nothing where
// nobody fuzzes.
func Corpus(f *testing.F) {
	f.Helper()
	folder := filepath.Join("testdata", "fuzz", f.Name())
	if entries, err := os.ReadDir(folder); err != nil || len(entries) == 0 {
		f.Fatalf("the corpus in %s is gone: %v", folder, err)
	}
}
