//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// program is this program: the test binary, with asProgram in its environment.
func program(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// A step that does not hold is named, and the program says so with its exit code.
func TestFailedStep(t *testing.T) {
	cmd := program(t)
	cmd.Env = append(cmd.Env, "TMPDIR="+filepath.Join(t.TempDir(), "missing"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), "%v: %s", err, out)
	assert.Equal(t, 1, exit.ExitCode())
	assert.Contains(t, string(out), "FAILED: step 1 (an mTLS echo server starts on certificate files): ")
}

// With -listen it serves until it is asked to stop.
func TestServe(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	root := filepath.Join(dir, "root.crt")
	require.NoError(t, tlstest.WriteFile(root, ca.PEM(), 0o644))
	cert, key := ca.Issue(t, tlstest.Leaf{Usage: tlstest.ServerOnly}).Files(t, dir, "server")
	client := ca.Issue(t, tlstest.Leaf{CommonName: "client", Usage: tlstest.ClientOnly})
	clientCert, clientKey := client.Files(t, dir, "client")

	server := program(t, "-listen", "127.0.0.1:0", "-cert", cert, "-key", key, "-client-ca", root)
	stdout, err := server.StdoutPipe()
	require.NoError(t, err)
	server.Stderr = os.Stderr
	require.NoError(t, server.Start())
	lines := bufio.NewScanner(stdout)
	listening := regexp.MustCompile(`listening on (\S+)`)
	var addr string
	for addr == "" && lines.Scan() {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			addr = found[1]
		}
	}
	require.NotEmpty(t, addr, "it never listens")

	conn, err := tls.Dial("tcp", addr, ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "go", Usage: tlstest.ClientOnly}))
	require.NoError(t, err)
	_, err = io.WriteString(conn, "hello from Go")
	require.NoError(t, err)
	got := make([]byte, len("hello from Go"))
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	assert.Equal(t, "hello from Go", string(got))
	require.NoError(t, conn.Close())

	t.Run("openssl", func(t *testing.T) {
		openssl := needs.Program(t, "openssl")
		args := []string{"s_client", "-connect", addr, "-servername", "localhost", "-CAfile", root, "-verify_return_error", "-quiet", "-no_ign_eof"}
		stranger := exec.CommandContext(t.Context(), openssl, args...)
		stranger.Stdin = neverEnds(t)
		out, err := stranger.CombinedOutput()
		assert.Error(t, err)
		assert.Contains(t, string(out), "alert certificate required")

		known := exec.CommandContext(t.Context(), openssl, append(args, "-cert", clientCert, "-key", clientKey)...)
		stdin, err := known.StdinPipe()
		require.NoError(t, err)
		stdout, err := known.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, known.Start())
		_, err = io.WriteString(stdin, "hello from openssl\n")
		require.NoError(t, err)
		line, err := bufio.NewReader(stdout).ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "hello from openssl\n", line)
		require.NoError(t, stdin.Close())
		assert.NoError(t, known.Wait())
	})
	t.Run("curl", func(t *testing.T) {
		// The answer of an echo server is the request, which curl takes for HTTP/0.9; it ends when
		// curl has waited long enough.
		curl := exec.CommandContext(t.Context(), needs.Program(t, "curl"), "-sS", "--http0.9", "--max-time", "2",
			"--cacert", root, "--cert", clientCert, "--key", clientKey, "https://"+strings.Replace(addr, "127.0.0.1", "localhost", 1)+"/hello")
		out, _ := curl.Output()
		assert.True(t, strings.HasPrefix(string(out), "GET /hello HTTP/1.1\r\n"), string(out))
	})

	require.NoError(t, server.Process.Signal(syscall.SIGTERM))
	for lines.Scan() { // to the end of its output
	}
	assert.NoError(t, server.Wait(), "it ends in order")
}

// neverEnds is the standard input of a program that ends by itself.
func neverEnds(t *testing.T) io.Reader {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}
