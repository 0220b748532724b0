package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

func TestMain(m *testing.M) {
	if settings, ok := os.LookupEnv(machineVariable); ok {
		log.Fatal(dyingMachine(settings))
	}
	flag.Parse()
	flag.Set("test.parallel", "6") // they mostly wait for certificates to grow old
	// The client's goroutine that looks for a server that is gone ends up to a second after Close.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

const (
	name  = "www.example.test"
	other = "api.example.test"
)

// world is a CA and one machine with a manager, and a server when serve is called.
type world struct {
	*certmanager.Manager
	ca     *acmetest.Server
	addr   string // of the TLS server, and before it of the manager's own listener
	events *eventLog
}

// start makes a manager whose source is the given one, with the CA filled in, and others.
func start(t *testing.T, ca *acmetest.Server, source *acme.Source, others ...certmanager.Source) *world {
	t.Helper()
	w, err := tryStart(t, ca, source, others...)
	require.NoError(t, err)
	return w
}

func tryStart(t *testing.T, ca *acmetest.Server, source *acme.Source, others ...certmanager.Source) (*world, error) {
	t.Helper()
	w := &world{ca: ca, addr: freeAddr(t), events: &eventLog{}}
	source.Directory, source.Roots = ca.Directory(), ca.Roots()
	if source.Listen == "" {
		source.Listen = w.addr
	}
	if source.Cache == nil {
		source.Cache = autocert.DirCache(t.TempDir())
	}
	ca.TLSALPN01(w.addr)
	var err error
	w.Manager, err = certmanager.New(certmanager.Options{
		Source: append(certmanager.Sources{source}, others...),
		Logger: slog.New(w.events),
	})
	if err == nil {
		t.Cleanup(func() { w.Close() })
	}
	return w, err
}

// freeAddr returns an address that nothing listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", needs.Port(t))
}

// serve runs a TLS server, which says hello, on the address where the CA validates.
func (w *world) serve(t *testing.T, configs ...*tls.Config) {
	t.Helper()
	listener, err := net.Listen("tcp", w.addr)
	require.NoError(t, err)
	if len(configs) > 0 {
		listener = tls.NewListener(listener, configs[0])
	} else {
		listener = w.NewListener(listener)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			done.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				io.WriteString(conn, "hello")
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		done.Wait()
	})
}

func (w *world) serveHTTP(t *testing.T, handler http.Handler) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: handler}
	var done sync.WaitGroup
	done.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		server.Close()
		done.Wait()
	})
	return listener.Addr().String()
}

// dial makes a handshake, verified by the CA's roots, and reads the hello.
func (w *world) dial(ctx context.Context, serverName string, edits ...func(*tls.Config)) (*x509.Certificate, error) {
	config := &tls.Config{ServerName: serverName, RootCAs: w.ca.Roots()}
	for _, edit := range edits {
		edit(config)
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", w.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, len("hello"))); err != nil {
		return nil, err
	}
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

func (w *world) mustDial(t *testing.T, serverName string, edits ...func(*tls.Config)) *x509.Certificate {
	t.Helper()
	leaf, err := w.dial(t.Context(), serverName, edits...)
	require.NoError(t, err, "%s", w.events)
	return leaf
}

// unverified lets the client take any certificate.
func unverified(c *tls.Config) { c.InsecureSkipVerify = true }

// eventually waits for something that another goroutine brings about.
func (w *world) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			require.Fail(t, what, "%s", w.events)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// eventLog keeps what the manager says, from before anyone can subscribe.
type eventLog struct {
	mu    sync.Mutex
	lines []string
	kinds []string
}

func (l *eventLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *eventLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *eventLog) WithGroup(string) slog.Handler            { return l }

func (l *eventLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, kind := r.Time.Format("05.000 ")+r.Message, ""
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		if a.Key == "event" {
			kind = a.Value.String()
		}
		return true
	})
	l.lines, l.kinds = append(l.lines, line), append(l.kinds, kind)
	return nil
}

func (l *eventLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := ""
	for _, line := range l.lines {
		all += line + "\n"
	}
	return all
}

// of returns the lines of one kind.
func (l *eventLog) of(kind certmanager.Kind) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var some []string
	for i, k := range l.kinds {
		if k == string(kind) {
			some = append(some, l.lines[i])
		}
	}
	return some
}

// fallback is a source with one certificate that no CA issued.
func fallback(t *testing.T) (certmanager.Source, *x509.Certificate) {
	t.Helper()
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{Names: []string{"fallback.example.test"}})
	cert := pair.Certificate()
	cert.Certificate = append(cert.Certificate, ca.Certificate().Raw) // the whole chain: nothing to warn of
	return certmanager.Static{Certificates: []tls.Certificate{cert}}, pair.Leaf
}

// traffic connects without a pause until stop, and returns what it met.
type traffic struct {
	connections int
	serials     []string
	failures    []error
	expired     int
}

func (w *world) traffic(t *testing.T) (stop func() traffic) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	met := make(chan traffic, 1)
	go func() {
		var all traffic
		for ctx.Err() == nil {
			all.connections++
			began := time.Now()
			leaf, err := w.dial(context.Background(), name, unverified)
			if err != nil {
				all.failures = append(all.failures, err)
				continue
			}
			if began.After(leaf.NotAfter) {
				all.expired++
			}
			if serial := leaf.SerialNumber.String(); !slices.Contains(all.serials, serial) {
				all.serials = append(all.serials, serial)
			}
			time.Sleep(2 * time.Millisecond)
		}
		met <- all
	}()
	return func() traffic {
		cancel()
		return <-met
	}
}
