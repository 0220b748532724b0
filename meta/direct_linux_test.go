package meta_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

const (
	computingServer = "ERGOTLS_TEST_COMPUTING_SERVER"
	computing       = 3 * time.Second
)

// serveComputing is a server in a process of its own with a single thread of Go code and nothing else to do: one of its actors computes before each
// answer to "compute".
func serveComputing(t *testing.T) {
	ca := tlstest.NewCA(t)
	h := newHost(t)
	listen := func(react func(o *owner, message any) bool) string {
		_, addr := h.spawn(react).listen(meta.TCPServerOptions{CertManager: manager{server: ca.ServerConfig(t, "localhost")}})
		return addr
	}
	busy := listen(func(o *owner, message any) bool {
		if m, ok := message.(meta.MessageTCP); ok && string(m.Data) == "compute" {
			for until := time.Now().Add(computing); time.Now().Before(until); {
			}
		}
		return echo(o, message)
	})
	require.NoError(t, json.NewEncoder(os.Stdout).Encode([]string{busy, listen(echo), string(ca.PEM())}))
	io.Copy(io.Discard, os.Stdin)
}

// The read path leans on this property of Go's runtime: its monitor thread, which interrupts what computes for long, sleeps no longer than
// until the next timer. So others get their turn while a handler computes, amid requests and after a time in which nothing
// happened, though the scheduler is not told of all system calls.
func TestComputingHandlerIsInterrupted(t *testing.T) {
	if os.Getenv(computingServer) != "" {
		serveComputing(t)
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=120s")
	cmd.Env, cmd.Stderr = append(os.Environ(), computingServer+"=1", "GOMAXPROCS=1"), os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var answer []string
	require.NoError(t, json.NewDecoder(out).Decode(&answer))
	t.Cleanup(func() {
		in.Close()
		rest, _ := io.ReadAll(out)
		assert.NoError(t, cmd.Wait(), "%s", rest)
	})
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(answer[2])))
	dial := func(addr string) *tls.Conn {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: "localhost"})
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		return conn
	}
	busy, other := dial(answer[0]), dial(answer[1])
	for _, pause := range []time.Duration{0, 300 * time.Millisecond} {
		for range 50 {
			talk(t, busy)
			talk(t, other)
		}
		time.Sleep(pause) // in which the server's monitor falls asleep
		_, err := io.WriteString(busy, "compute")
		require.NoError(t, err)
		time.Sleep(10 * time.Millisecond) // in which it begins
		began := time.Now()
		talk(t, other)
		assert.Less(t, time.Since(began), computing/5, "after %v of silence", pause)
		t.Logf("answered after %v, after %v of silence", time.Since(began), pause)
		_, err = io.ReadFull(busy, make([]byte, len("compute")))
		require.NoError(t, err)
		assert.Greater(t, time.Since(began), computing/2)
	}
}
