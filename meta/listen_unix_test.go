//go:build unix

package meta_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// What is wrong with the path of a unix socket is said.
func TestUnixPathErrors(t *testing.T) {
	dir := t.TempDir()
	file, taken := filepath.Join(dir, "file"), filepath.Join(dir, "taken")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: taken})
	require.NoError(t, err)
	defer server.Terminate(nil)
	for _, path := range []string{file, dir, taken} {
		_, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: path})
		require.ErrorIs(t, err, meta.ErrListen)
		assert.ErrorContains(t, err, path)
		assert.ErrorContains(t, err, "or UnixPath is not a socket")
	}
	for path, says := range map[string]string{
		filepath.Join(dir, strings.Repeat("x", 120)): "bytes; use at most",
		// The system would bind the part before the zero byte, and the file would stay.
		filepath.Join(dir, "cut\x00off"): "zero byte",
	} {
		_, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: path})
		require.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, says)
		_, err = meta.CreateTCPConnection(meta.TCPConnectionOptions{UnixPath: path})
		require.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, says)
	}
	assert.NoFileExists(t, filepath.Join(dir, "cut"))
}

// An abstract socket has no permissions and no owner, and a file that has its name keeps its own.
func TestAbstractSocketHasNoFile(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has abstract sockets")
	}
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("@socket", nil, 0o600))
	for _, options := range []meta.TCPServerOptions{{UnixMode: 0o666}, {UnixOwner: strconv.Itoa(os.Getuid())}} {
		options.UnixPath = "@socket"
		_, err := meta.CreateTCPServer(options)
		require.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, "UnixMode, UnixOwner: the abstract socket")
	}
	info, err := os.Stat("@socket")
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: "@socket"})
	require.NoError(t, err)
	server.Terminate(nil)
}
