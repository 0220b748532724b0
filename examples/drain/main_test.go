//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// The program is built and run: a restart is about processes.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "drain")
	output, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", output)
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "server")
	first := exec.Command(program, "-listen", "localhost:0", "-cert", cert, "-key", key)
	out, in := io.Pipe()
	first.Stdout, first.Stderr = in, in
	require.NoError(t, first.Start())
	lines := make(chan string, 100)
	go func() {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	says := func(text string) string {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case line := <-lines:
				if strings.Contains(line, text) {
					return line
				}
			case <-deadline:
				t.Fatalf("it never says %q", text)
			}
		}
	}
	config := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
	fields := strings.Fields(says("serves"))
	addr := fields[len(fields)-1]
	echo := func(conn *tls.Conn) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, err := conn.Write([]byte("x"))
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	old, err := tls.Dial("tcp", addr, config)
	require.NoError(t, err)
	echo(old)

	require.NoError(t, first.Process.Signal(syscall.SIGHUP))
	for range 20 { // no connection is refused at any time
		conn, err := tls.Dial("tcp", addr, config)
		require.NoError(t, err)
		echo(conn)
		conn.Close()
	}
	second, err := strconv.Atoi(strings.Fields(says("serves"))[1])
	require.NoError(t, err)
	assert.NotEqual(t, first.Process.Pid, second)
	echo(old) // and none is cut off
	require.NoError(t, old.Close())
	assert.Contains(t, says("has drained"), "closed by peer")
	require.NoError(t, syscall.Kill(second, syscall.SIGHUP)) // its successor is the last
	third, err := strconv.Atoi(strings.Fields(says("serves"))[1])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(third, syscall.SIGKILL))
	assert.NoError(t, first.Wait())
}
