package tlstest_test

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// replacements are those that work here: links want a privilege on Windows.
func replacements() []tlstest.Replacement {
	return slices.DeleteFunc(slices.Clone(tlstest.Replacements), func(g tlstest.Replacement) bool {
		return runtime.GOOS == "windows" && g.Name == "kubernetes swap"
	})
}

func pairFiles(t *testing.T, ca *tlstest.CA) map[string][]byte {
	pair := ca.Issue(t, tlstest.Leaf{})
	return map[string][]byte{"tls.crt": pair.CertPEM, "tls.key": pair.KeyPEM, "ca.crt": ca.PEM()}
}

func requireContent(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
	}
	_, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	require.NoError(t, err)
}

// Every replacement follows every other on one folder, as in a random rotation.
func TestReplacementsCompose(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, first := range replacements() {
		for _, second := range replacements() {
			t.Run(first.Name+"/"+second.Name, func(t *testing.T) {
				parent := t.TempDir()
				dir := filepath.Join(parent, "certs")
				require.NoError(t, os.Mkdir(dir, 0o700))
				for _, g := range []tlstest.Replacement{first, first, second} {
					files := pairFiles(t, ca)
					require.NoError(t, g.Replace(dir, files, nil), g.Name)
					requireContent(t, dir, files)
				}
				entries, err := os.ReadDir(parent)
				require.NoError(t, err)
				assert.Len(t, entries, 1, "a temporary folder stays")
				for _, pattern := range []string{"*tmp*", "*_tmp"} {
					left, err := filepath.Glob(filepath.Join(dir, pattern))
					require.NoError(t, err)
					assert.Empty(t, left)
				}
			})
		}
	}
}

// loads tells what a reader finds: the old pair, the new one or neither.
func loads(dir string, before, after map[string][]byte) string {
	cert, errCert := os.ReadFile(filepath.Join(dir, "tls.crt"))
	key, errKey := os.ReadFile(filepath.Join(dir, "tls.key"))
	_, errPair := tls.X509KeyPair(cert, key)
	switch {
	case errors.Join(errCert, errKey, errPair) != nil:
		return "neither"
	case string(cert) == string(before["tls.crt"]):
		return "old"
	case string(cert) == string(after["tls.crt"]):
		return "new"
	}
	return "neither"
}

func TestWhatReadersFindBetween(t *testing.T) {
	asRoot := os.Geteuid() == 0 || runtime.GOOS == "windows"
	want := map[string][]string{ // the ca.crt is the first or the second file
		"rename over":            {"old", "neither"},
		"delete then create":     {"neither"},
		"truncate and write":     {"old", "old", "old", "old", "old", "neither", "neither", "neither", "neither", "neither", "neither", "neither", "neither", "neither"},
		"key before certificate": {"neither", "neither"},
		"certificate before key": {"old", "neither"},
		"unreadable until chmod": {"neither", "neither", "neither"},
		"kubernetes swap":        {"old", "new"},
		"folder deleted":         {"neither", "neither"},
		"folder swapped":         {"neither"},
		"without event":          {"old", "neither"},
	}
	if asRoot {
		want["unreadable until chmod"] = []string{"new", "new", "new"}
	}
	ca := tlstest.NewCA(t)
	for _, g := range replacements() {
		t.Run(g.Name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "certs")
			require.NoError(t, os.Mkdir(dir, 0o700))
			before, after := pairFiles(t, ca), pairFiles(t, ca)
			require.NoError(t, g.Replace(dir, before, nil))
			var got []string
			require.NoError(t, g.Replace(dir, after, func() { got = append(got, loads(dir, before, after)) }))
			assert.Equal(t, want[g.Name], got)
		})
	}
}

func TestKubernetesLayout(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links want a privilege on Windows")
	}
	ca, dir := tlstest.NewCA(t), t.TempDir()
	require.NoError(t, tlstest.KubernetesSwap(dir, pairFiles(t, ca), nil))
	first, err := os.Readlink(filepath.Join(dir, "..data"))
	require.NoError(t, err)
	assert.Regexp(t, `^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$`, first)
	target, err := os.Readlink(filepath.Join(dir, "tls.crt"))
	require.NoError(t, err)
	assert.Equal(t, "..data/tls.crt", target)

	files := pairFiles(t, ca)
	delete(files, "ca.crt")
	link, err := os.Lstat(filepath.Join(dir, "tls.crt"))
	require.NoError(t, err)
	require.NoError(t, tlstest.KubernetesSwap(dir, files, nil))
	second, err := os.Readlink(filepath.Join(dir, "..data"))
	require.NoError(t, err)
	assert.NotEqual(t, first, second)
	same, err := os.Lstat(filepath.Join(dir, "tls.crt"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(link, same), "the file's own link is not touched")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	assert.ElementsMatch(t, []string{"..data", second, "tls.crt", "tls.key"}, names)
}

// The replacements say truly whether a watcher of the folder hears of them.
func TestSilence(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("inotify is Linux's")
	}
	ca := tlstest.NewCA(t)
	for _, g := range tlstest.Replacements {
		t.Run(g.Name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "certs")
			require.NoError(t, os.Mkdir(dir, 0o700))
			require.NoError(t, g.Replace(dir, pairFiles(t, ca), nil))
			watcher, err := fsnotify.NewWatcher()
			require.NoError(t, err)
			defer watcher.Close()
			require.NoError(t, watcher.Add(dir))

			require.NoError(t, g.Replace(dir, pairFiles(t, ca), nil))
			// Silence is what an event that comes after it is the first to break.
			end := filepath.Join(dir, "end")
			require.NoError(t, os.WriteFile(end, nil, 0o600))
			first := ""
			select {
			case event := <-watcher.Events:
				first = event.Name
			case <-watcher.Errors: // a watch that is lost speaks too
			case <-time.After(30 * time.Second):
				t.Fatal("the watcher hears nothing")
			}
			assert.Equal(t, g.Silent, first == end)
		})
	}
}

func TestReplacementsFail(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "folder")
	files := map[string][]byte{"tls.crt": nil}
	for _, g := range tlstest.Replacements {
		assert.ErrorIs(t, g.Replace(missing, files, nil), os.ErrNotExist, g.Name)
	}
}
