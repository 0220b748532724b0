package meta_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"os"
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
	_, out := startAgain(t, computingServer+"=1", "GOMAXPROCS=1")
	var answer []string
	require.NoError(t, out.Decode(&answer))
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

// A given listener may leave its connections in the mode in which reads block and deadlines have no effect. The server's do, from the handshake on.
func TestListenerThatMakesDescriptorsBlock(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		_, addr := newHost(t).spawn(echo).listen(meta.TCPServerOptions{
			CertManager: m.manager, Listener: blockingListener{newListener(t)}, HandshakeTimeout: 500 * time.Millisecond, IdleTimeout: time.Second,
		})
		silent := dialTCP(t, addr)
		peer := m.dial(t, addr)
		talk(t, peer)
		for _, conn := range []net.Conn{silent, peer} {
			conn.SetReadDeadline(time.Now().Add(patience))
			_, err := io.Copy(io.Discard, conn)
			assert.NoError(t, err, "the server ends it")
		}
	})
}

type blockingListener struct{ net.Listener }

func (l blockingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			return nil, err
		}
		file.Fd()
		file.Close()
	}
	return conn, err
}
