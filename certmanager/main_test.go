package certmanager

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(recorded.logger()))
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if code == 0 {
			code = recorded.check()
		}
		os.Exit(code)
	}))
}

// logBuffer collects log lines of one manager, or of many.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// newManager makes a manager that is closed with the test.
func newManager(t testing.TB, o Options) *Manager {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = slog.New(slog.NewMultiHandler(o.Logger.Handler(), recorded.logger()))
	o.Source = recordKeys(o.Source)
	m, err := New(o)
	require.NoError(t, err)
	m.Subscribe(recorded.event)
	t.Cleanup(func() {
		recorded.manager(m)
		require.NoError(t, m.Close())
	})
	return m
}

// tryNew is New of a manager that may not come to be.
func tryNew(o Options) (*Manager, error) {
	o.Source = recordKeys(o.Source)
	m, err := New(o)
	recorded.text(err)
	return m, err
}

// connected is what both ends of a handshake saw.
type connected struct {
	server, client       tls.ConnectionState
	serverErr, clientErr error
}

func (c connected) ok(t *testing.T) connected {
	t.Helper()
	require.NoError(t, errors.Join(c.serverErr, c.clientErr))
	return c
}

// refused requires that no data passed.
func (c connected) refused(t *testing.T) connected {
	t.Helper()
	require.Error(t, c.clientErr, "client")
	return c
}

// connect makes a handshake over loopback and sends a byte in both directions, so
// that a TLS 1.3 client hears of its refusal and gets its session ticket.
func connect(t testing.TB, server, client *tls.Config) connected {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	clientEnd, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	serverEnd, err := listener.Accept()
	require.NoError(t, err)
	return handshake(serverEnd, clientEnd, server, client)
}

// connectPipe is connect for a synctest bubble, where sockets do not work.
func connectPipe(server, client *tls.Config) connected {
	serverEnd, clientEnd := net.Pipe()
	return handshake(buffer(serverEnd), buffer(clientEnd), server, client)
}

// buffered is an end of a pipe whose writes do not wait for a reader: in TLS 1.3 both
// sides may write at once.
type buffered struct {
	net.Conn
	queue chan []byte
}

func buffer(c net.Conn) net.Conn {
	b := buffered{c, make(chan []byte, 1000)}
	go func() {
		for p := range b.queue {
			c.Write(p)
		}
		c.Close()
	}()
	return b
}

func (b buffered) Write(p []byte) (int, error) {
	b.queue <- bytes.Clone(p)
	return len(p), nil
}

func (b buffered) Close() error {
	close(b.queue)
	return b.Conn.SetReadDeadline(time.Now())
}

func handshake(serverEnd, clientEnd net.Conn, server, client *tls.Config) connected {
	var c connected
	var wait sync.WaitGroup
	wait.Go(func() { c.server, c.serverErr = exchange(tls.Server(serverEnd, server)) })
	wait.Go(func() { c.client, c.clientErr = exchange(tls.Client(clientEnd, client)) })
	wait.Wait()
	recorded.text(c.serverErr, c.clientErr)
	return c
}

func exchange(conn *tls.Conn) (tls.ConnectionState, error) {
	defer conn.NetConn().Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if err := conn.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write([]byte{1})
		written <- err
	}()
	_, err := io.ReadFull(conn, make([]byte, 1))
	if err = errors.Join(err, <-written); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.ConnectionState(), nil
}

// eventually waits for something that a real file system or a goroutine brings about.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, time.Minute, 5*time.Millisecond, what)
}

// serial returns the serial of the leaf that a server serves now.
func serial(t *testing.T, m *Manager, ca *tlstest.CA) string {
	t.Helper()
	c := connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).ok(t)
	return c.client.PeerCertificates[0].SerialNumber.String()
}

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// collect subscribes and returns a function that returns the events so far of a kind.
func collect(m *Manager) func(Kind) []Event {
	var mu sync.Mutex
	var all []Event
	m.Subscribe(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, e)
	})
	return func(kind Kind) []Event {
		mu.Lock()
		defer mu.Unlock()
		var some []Event
		for _, e := range all {
			if e.Kind == kind {
				some = append(some, e)
			}
		}
		return some
	}
}

func leaf(pair *tlstest.Pair) Static {
	return Static{Certificates: []tls.Certificate{pair.Certificate()}}
}
