package regular_test

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/internal/regular"
)

const appending = os.O_WRONLY | os.O_CREATE | os.O_APPEND

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file, pipe, socket := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "socket")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer listener.Close()
	for path, says := range map[string]string{dir: "it is a folder", pipe: "it is a pipe", "/dev/zero": "or a device"} {
		_, err := regular.Open(path, os.O_RDONLY, 0)
		require.ErrorIs(t, err, regular.ErrNot, path)
		assert.ErrorContains(t, err, path)
		assert.ErrorContains(t, err, says)
	}
	for _, path := range []string{dir, pipe, socket} {
		_, err := regular.Open(path, appending, 0o600)
		assert.ErrorContains(t, err, path)
	}
	_, err = regular.Open(file, os.O_RDONLY, 0)
	require.ErrorIs(t, err, os.ErrNotExist)
	for range 2 {
		f, err := regular.Open(file, appending, 0o600)
		require.NoError(t, err)
		_, err = f.WriteString("text")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "texttext", string(data))
}

// A file that becomes a FIFO after it was looked at keeps nobody waiting.
func TestOpenWhileReplaced(t *testing.T) {
	dir := t.TempDir()
	file, pipe, path, next := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "path"), filepath.Join(dir, "next")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.NoError(t, os.Link(file, path))
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		for range 20_000 {
			if f, err := regular.Open(path, os.O_RDONLY, 0); err == nil {
				f.Close()
			} else if !assert.ErrorIs(t, err, regular.ErrNot) {
				return
			}
		}
	}()
	progress := time.NewTimer(20 * time.Second)
	defer progress.Stop()
	for i := 0; ; i++ {
		select {
		case <-opened:
			return
		case <-progress.C:
			w, err := os.OpenFile(pipe, os.O_RDWR, 0) // releases it
			require.NoError(t, err)
			defer w.Close()
			t.Error("Open waits for a FIFO")
			<-opened
			return
		default:
		}
		require.NoError(t, os.Link([]string{file, pipe}[i%2], next))
		require.NoError(t, os.Rename(next, path))
		require.NoError(t, os.RemoveAll(next)) // where both are the same file, Rename does nothing
	}
}
