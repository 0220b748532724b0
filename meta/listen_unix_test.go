//go:build unix

package meta_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// What is wrong with the path of a unix socket is said.
func TestUnixPathErrors(t *testing.T) {
	dir := t.TempDir()
	file, long, taken := filepath.Join(dir, "file"), filepath.Join(dir, strings.Repeat("x", 120)), filepath.Join(dir, "taken")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: taken})
	require.NoError(t, err)
	defer server.Terminate(nil)
	for path, says := range map[string]string{
		file: "no socket: remove it", dir: "no socket: remove it", taken: "choose another UnixPath", long: "too long",
	} {
		_, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: path})
		require.ErrorIs(t, err, meta.ErrListen)
		assert.ErrorContains(t, err, path)
		assert.ErrorContains(t, err, says)
	}
	_, err = meta.CreateTCPConnection(meta.TCPConnectionOptions{UnixPath: long})
	require.ErrorIs(t, err, meta.ErrDial)
	assert.ErrorContains(t, err, "too long")

	// The system would bind the part before the zero byte, and the file would stay.
	cut := filepath.Join(dir, "cut\x00off")
	_, err = meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: cut})
	require.ErrorIs(t, err, meta.ErrOption)
	_, err = meta.CreateTCPConnection(meta.TCPConnectionOptions{UnixPath: cut})
	require.ErrorIs(t, err, meta.ErrOption)
	assert.NoFileExists(t, filepath.Join(dir, "cut"))
}
