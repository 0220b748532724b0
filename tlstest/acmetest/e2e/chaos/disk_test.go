//go:build linux

package chaos

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A certificate is copied onto a disk that is full after its first page.
func TestFullDisk(t *testing.T) {
	w := newWorld(t, "disk full in the middle of a certificate")
	w.mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", w.dir)
	w.begin()
	next := w.issue()
	contents := w.contents(next)
	contents["server.crt"] = append(bytes.Repeat([]byte("what it is, in many words\n"), os.Getpagesize()/26), contents["server.crt"]...)

	path := filepath.Join(w.dir, "server.crt")
	require.NoError(t, os.Truncate(path, 0))
	fill(t, filepath.Join(w.dir, "filler"))
	require.NoError(t, os.Truncate(filepath.Join(w.dir, "filler"), int64(os.Getpagesize())*(pages(t, filepath.Join(w.dir, "filler"))-1)))
	require.ErrorIs(t, os.WriteFile(path, contents["server.crt"], 0o600), syscall.ENOSPC)
	half, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotEmpty(t, half)
	w.visible("rejected, Status.LastError", func(r report) bool { return r.happened(certmanager.Rejected, "server.crt") && r.Status.LastError != "" })

	require.NoError(t, os.Remove(filepath.Join(w.dir, "filler")))
	require.NoError(t, tlstest.TruncateAndWrite(w.dir, contents, nil))
	w.served(next, soon)
	w.finish()
}

// fill writes until nothing fits any more.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	_, err = io.Copy(file, io.LimitReader(zeros{}, 1<<30))
	require.ErrorIs(t, err, syscall.ENOSPC)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return min(len(b), os.Getpagesize()), nil }

func pages(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size() / int64(os.Getpagesize())
}

// The folder is mounted read-only when the operator's tool comes, and writable again later.
func TestReadOnly(t *testing.T) {
	w := newWorld(t, "disk remounted read-only")
	w.mount("-t", "tmpfs", "tmpfs", w.dir)
	w.begin()
	w.mount("-o", "remount,ro", w.dir)
	next := w.issue()
	require.ErrorIs(t, tlstest.RenameOver(w.dir, w.contents(next), nil), syscall.EROFS)
	require.Empty(t, w.ask("status").Status.LastError)
	w.row.visible = "the writer's error; the server only reads"
	w.mount("-o", "remount,rw", w.dir)
	require.NoError(t, tlstest.RenameOver(w.dir, w.contents(next), nil))
	w.served(next, soon)
	w.finish()
}

// The disk gives the certificate's bytes no longer.
func TestEIO(t *testing.T) {
	w := newWorld(t, "EIO from the certificate file")
	w.begin()
	stop := w.inject("read,pread64", "EIO", "-P", filepath.Join(w.dir, "server.crt"))
	next := w.rotate()
	w.visible("rejected, Status.LastError", func(r report) bool {
		return r.happened(certmanager.Rejected, syscall.EIO.Error()) && strings.Contains(r.Status.LastError, syscall.EIO.Error())
	})
	stop()
	w.served(next, soon)
	w.finish()
}
