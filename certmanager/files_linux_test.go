package certmanager

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is no file is refused, and does not keep anyone waiting.
func TestSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.crt")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, files := range []Files{{Cert: pipe}, {Cert: "/dev/zero"}, {Cert: dir}, {Dir: dir}} {
		_, err := New(Options{Source: files})
		require.ErrorIs(t, err, ErrInvalid)
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
	require.NoError(t, os.Truncate(path, maxFileSize+1))
	_, err := New(Options{Source: Files{Cert: path}})
	require.ErrorIs(t, err, ErrInvalid)
	require.ErrorContains(t, err, "larger than")
}
