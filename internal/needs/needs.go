// Package needs tells a test where an outside program is.
package needs

import (
	"os"
	"os/exec"
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
