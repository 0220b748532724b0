package certmanager_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

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
	return bothEnds(serverEnd, clientEnd, server, client)
}

// connectPipe is connect for a synctest bubble, where sockets do not work.
func connectPipe(server, client *tls.Config) connected {
	serverEnd, clientEnd := net.Pipe()
	return bothEnds(buffer(serverEnd), buffer(clientEnd), server, client)
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
	defer close(b.queue) // after which the goroutine closes the pipe
	return b.Conn.SetReadDeadline(time.Now())
}

func bothEnds(serverEnd, clientEnd net.Conn, server, client *tls.Config) connected {
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
func serial(t *testing.T, m *certmanager.Manager, ca *tlstest.CA) string {
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
func collect(m *certmanager.Manager) func(certmanager.Kind) []certmanager.Event {
	var mu sync.Mutex
	var all []certmanager.Event
	m.Subscribe(func(e certmanager.Event) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, e)
	})
	return func(kind certmanager.Kind) []certmanager.Event {
		mu.Lock()
		defer mu.Unlock()
		var some []certmanager.Event
		for _, e := range all {
			if e.Kind == kind {
				some = append(some, e)
			}
		}
		return some
	}
}

func leaf(pair *tlstest.Pair) certmanager.Static {
	return certmanager.Static{Certificates: []tls.Certificate{pair.Certificate()}}
}

type tracked struct {
	reasons chan error
	release func()
}

func track(m *certmanager.Manager, state tls.ConnectionState) *tracked {
	c := &tracked{reasons: make(chan error, 2)}
	c.release = m.Track(&state, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5}, func(reason error) { c.reasons <- reason })
	return c
}

// evicted waits for the eviction.
func (c *tracked) evicted(t *testing.T) error {
	t.Helper()
	select {
	case reason := <-c.reasons:
		return reason
	case <-time.After(time.Minute):
		t.Fatal("not evicted")
		return nil
	}
}

func (c *tracked) open(t *testing.T, why string) {
	t.Helper()
	select {
	case reason := <-c.reasons:
		t.Fatalf("evicted: %v (%s)", reason, why)
	default:
	}
}

func parseCRL(t testing.TB, der []byte) *x509.RevocationList {
	t.Helper()
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	list, err := x509.ParseRevocationList(der)
	require.NoError(t, err)
	return list
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// renewedRoot makes one CA with two certificates, that end after different times, and a client of
// it.
func renewedRoot(t *testing.T, short, long time.Duration) (first, second *x509.Certificate, client tls.Certificate) {
	t.Helper()
	make := func(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	root := func(serial int64, lifetime time.Duration) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "renewed"}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(lifetime), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}
		return make(template, template, key.Public(), key)
	}
	first, second = root(1, short), root(2, long)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := make(&x509.Certificate{
		SerialNumber: big.NewInt(3), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, first, leafKey.Public(), key)
	return first, second, tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: leafKey}
}
