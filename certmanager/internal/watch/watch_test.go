package watch_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager/internal/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type changes chan struct{}

// run watches until the test ends, and takes the first call, for what happened before.
func run(t *testing.T, set watch.Set) changes {
	c := make(changes, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- set.Run(ctx, func() { c <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	c.wait(t)
	return c
}

func (c changes) wait(t *testing.T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(5 * time.Second): // before the folders are looked up again without an event
		t.Fatal("nothing is reported")
	}
}

// What is watched is what a change of the path shows in, wherever that is.
func TestChangesOfThePath(t *testing.T) {
	for name, c := range map[string]struct {
		file           string // in top; it is watched
		before, change func(t *testing.T, top string)
	}{
		"the folder returns": {
			"a/tls/tls.crt",
			func(t *testing.T, top string) {},
			func(t *testing.T, top string) { require.NoError(t, os.Mkdir(top+"/a", 0o700)) },
		},
		"a folder above leads elsewhere": {
			"a/tls/tls.crt",
			func(t *testing.T, top string) {
				require.NoError(t, os.MkdirAll(top+"/1/tls", 0o700))
				require.NoError(t, os.MkdirAll(top+"/2/tls", 0o700))
				require.NoError(t, os.Symlink("1", top+"/a"))
				require.NoError(t, os.Symlink("2", top+"/next"))
			},
			func(t *testing.T, top string) { require.NoError(t, os.Rename(top+"/next", top+"/a")) },
		},
		"the folder above the target of a link": { // as the system follows it, not as filepath.Clean does
			"link/../a/tls/tls.crt",
			func(t *testing.T, top string) {
				require.NoError(t, os.MkdirAll(top+"/b/c", 0o700))
				require.NoError(t, os.MkdirAll(top+"/b/a/tls", 0o700))
				require.NoError(t, os.Symlink("b/c", top+"/link"))
			},
			func(t *testing.T, top string) {
				require.NoError(t, os.WriteFile(top+"/link/../a/tls/tls.crt", nil, 0o600))
			},
		},
		"the target of a link changes": {
			"a/tls/tls.crt",
			func(t *testing.T, top string) {
				require.NoError(t, os.MkdirAll(top+"/a/tls", 0o700))
				require.NoError(t, os.MkdirAll(top+"/b", 0o700))
				require.NoError(t, os.WriteFile(top+"/b/tls.crt", []byte("1"), 0o600))
				require.NoError(t, os.Symlink(top+"/b/tls.crt", top+"/a/tls/tls.crt"))
			},
			func(t *testing.T, top string) { require.NoError(t, os.WriteFile(top+"/b/tls.crt", []byte("2"), 0o600)) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			c.before(t, top)
			changed := run(t, watch.Set{Files: []string{top + "/" + c.file}})
			c.change(t, top)
			changed.wait(t)
		})
	}
}

// A folder that is mounted from a Kubernetes secret changes by one link that no file in it is named
// after.
func TestFolderOfLinks(t *testing.T) {
	top := t.TempDir()
	for _, version := range []string{"..1", "..2"} {
		require.NoError(t, os.Mkdir(top+"/"+version, 0o700))
		require.NoError(t, os.WriteFile(top+"/"+version+"/tls.crt", []byte(version), 0o600))
	}
	require.NoError(t, os.Symlink("..1", top+"/..data"))
	require.NoError(t, os.Symlink("..data/tls.crt", top+"/tls.crt"))
	crt := func(base string) bool { return filepath.Ext(base) == ".crt" && base[0] != '.' }
	changed := run(t, watch.Set{Dir: top, Match: crt})
	require.NoError(t, os.Symlink("..2", top+"/..next"))
	require.NoError(t, os.Rename(top+"/..next", top+"/..data"))
	changed.wait(t)
}

// What happens to other files is passed over, what happens to a new one of the folder is not.
func TestOtherFiles(t *testing.T) {
	top := t.TempDir()
	crt := func(base string) bool { return filepath.Ext(base) == ".crt" }
	changed := run(t, watch.Set{Dir: top, Match: crt})
	for range 200 {
		require.NoError(t, os.WriteFile(top+"/access.log", []byte("a line"), 0o600))
		require.NoError(t, os.Remove(top+"/access.log"))
	}
	require.NoError(t, os.WriteFile(top+"/new.crt", nil, 0o600))
	changed.wait(t)
	require.LessOrEqual(t, len(changed), 2, "of the one file")
}

// Links that lead to each other lead nowhere.
func TestLinksInACircle(t *testing.T) {
	top := t.TempDir()
	require.NoError(t, os.Symlink(top+"/b", top+"/a"))
	require.NoError(t, os.Symlink(top+"/a", top+"/b"))
	changed := run(t, watch.Set{Files: []string{top + "/a/tls.crt", "", "relative.crt"}})
	require.NoError(t, os.Remove(top+"/a"))
	changed.wait(t)
}
