//go:build unix

package docs_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// A child gets a listening socket as systemd gives it: descriptor 3, LISTEN_FDS, and LISTEN_PID
// with its own id, which the shell knows.
func TestSocketActivation(t *testing.T) {
	if os.Getenv("DOCS_ACTIVATED") != "" {
		listener, err := activated()
		require.NoError(t, err)
		s, stop := serve(meta.TCPServerOptions{Listener: listener}, echo)
		defer stop()
		assert.Equal(t, listener.Addr().String(), s.listen)
		os.Stdin.Read(make([]byte, 1)) // until the parent closes it
		return
	}
	_, err := activated()
	require.ErrorContains(t, err, "systemd has opened none")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	require.NoError(t, err)
	defer file.Close()
	child := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -test.run '^TestSocketActivation$'`, os.Args[0])
	child.Env = append(os.Environ(), "DOCS_ACTIVATED=1")
	child.ExtraFiles = []*os.File{file}
	stdin, err := child.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	require.NoError(t, listener.Close()) // the child alone has it now
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = conn.Write([]byte("hello"))
	require.NoError(t, err)
	answer := make([]byte, 5)
	_, err = conn.Read(answer)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(answer))
	require.NoError(t, conn.Close())
	stdin.Close()
	assert.NoError(t, child.Wait())
}

func TestReloadOnHangup(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "server")
	certs, err := certmanager.New(certmanager.Options{
		Source:       certmanager.Files{Cert: cert, Key: key},
		PollInterval: time.Hour,
	})
	require.NoError(t, err)
	defer certs.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		reloadOnHangup(ctx, certs)
		close(ended)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	keep := make(chan os.Signal, 1) // so that a SIGHUP before it listens does not end the test
	signal.Notify(keep, syscall.SIGHUP)
	t.Cleanup(func() { signal.Ignore(syscall.SIGHUP) }) // one that is still on its way either
	next := ca.Issue(t, tlstest.Leaf{})
	files := map[string][]byte{"server.crt": next.CertPEM, "server.key": next.KeyPEM}
	require.NoError(t, tlstest.WithoutEvent(dir, files, nil)) // only a signal will tell
	require.Eventually(t, func() bool {
		return syscall.Kill(os.Getpid(), syscall.SIGHUP) == nil && certs.Status().Generation == 2
	}, 20*time.Second, 50*time.Millisecond)
}
