//go:build unix

package crlfetch_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// nginx serves a folder until stop.
func nginx(t *testing.T, dir string, port uint16) (stop func()) {
	t.Helper()
	prefix := t.TempDir()
	config := filepath.Join(prefix, "nginx.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log %[1]s/access.log combined;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server { listen 127.0.0.1:%[2]d; root %[3]s; }
}`, prefix, port, dir), 0o600))
	cmd := exec.Command(needs.Program(t, "nginx"), "-c", config, "-p", prefix)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
	}
	t.Cleanup(stop)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	return stop
}

// A real web server: lists are replaced, half written, removed, and it restarts.
func TestNginx(t *testing.T) {
	w := newWorld(t)
	dir, port := t.TempDir(), needs.Port(t)
	require.NoError(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "list.crl")
	replace := func(data []byte) { require.NoError(t, tlstest.WriteFile(path, data, 0o644)) }
	replace(w.list(1, w.alice))
	stop := nginx(t, dir, port)
	source := w.source()
	source.URLs = []string{fmt.Sprintf("http://127.0.0.1:%d/list.crl", port)}
	require.NoError(t, w.start(source))
	assert.False(t, w.in(w.alice))

	replace(w.list(2, w.alice, w.bob))
	w.eventually(func() bool { return !w.in(w.bob) }, "a new list")
	whole := w.list(3, w.alice)
	require.NoError(t, os.WriteFile(path, whole[:len(whole)/2], 0o644)) // a copy that is under way
	w.eventually(func() bool { return w.told("it is not a revocation list") }, "half a list")
	assert.False(t, w.in(w.bob))
	require.NoError(t, os.WriteFile(path, whole, 0o644))
	w.eventually(func() bool { return w.in(w.bob) }, "the whole")
	require.NoError(t, os.Remove(path))
	w.eventually(func() bool { return w.told("404 Not Found") }, "removed")
	assert.False(t, w.in(w.alice))
	require.NoError(t, os.WriteFile(path, whole, 0o000)) // for root nginx reads it all the same
	stop()
	w.eventually(func() bool { return w.told("connection refused") }, "the server is gone")
	assert.False(t, w.in(w.alice))
	require.NoError(t, os.Chmod(path, 0o644))
	replace(w.list(4))
	defer nginx(t, dir, port)()
	w.eventually(func() bool { return w.in(w.alice) }, "the server is back, with a list of nobody")
}
