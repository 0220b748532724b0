package certmanager_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
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
			require.ErrorContains(t, err, "not a regular file")
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
		require.ErrorContains(t, err, "SSLKEYLOGFILE: ")
		require.ErrorContains(t, err, path)
	}
}

// Handshakes do not fail where their secrets cannot be written. That is said once.
func TestKeyLogDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mounting a file system: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	write(t, dir, "padding", make([]byte, 4<<10))
	t.Setenv("SSLKEYLOGFILE", filepath.Join(dir, "keys"))
	ca := tlstest.NewCA(t)
	source := certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, RootCAs: ca.Pool()}
	var log logBuffer
	m := newManager(t, certmanager.Options{Source: source, Logger: log.logger()})
	for range 2 {
		connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t)
	}
	require.Equal(t, 1, strings.Count(log.String(), "no space left on device"))
}
