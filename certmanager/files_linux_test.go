package certmanager_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// What is no file is refused, and does not keep anyone waiting.
func TestSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.crt")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, files := range []certmanager.Files{{Cert: pipe}, {Cert: "/dev/zero"}, {Cert: dir}, {Dir: dir}} {
		_, err := certmanager.New(certmanager.Options{Source: files})
		require.ErrorIs(t, err, certmanager.ErrInvalid)
		if files.Cert == dir {
			require.ErrorContains(t, err, "it is a folder")
		} else {
			require.ErrorContains(t, err, "no regular file")
		}
	}
}

// Nor is a path that leads to a disk image read to its end.
func TestHugeFile(t *testing.T) {
	path := write(t, t.TempDir(), "huge.crt", nil)
	require.NoError(t, os.Truncate(path, 16<<20+1))
	_, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: path}})
	require.ErrorIs(t, err, certmanager.ErrInvalid)
	require.ErrorContains(t, err, "larger than")
}

// Nor does New wait for a reader of a pipe in place of the file of TLS secrets.
func TestKeyLogSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	source := leaf(tlstest.NewCA(t).Issue(t, tlstest.Leaf{}))
	for _, path := range []string{pipe, "/dev/full", dir} {
		t.Setenv("SSLKEYLOGFILE", path)
		_, err := tryNew(certmanager.Options{Source: source})
		require.ErrorContains(t, err, "SSLKEYLOGFILE: "+path+": no regular file")
	}
}
