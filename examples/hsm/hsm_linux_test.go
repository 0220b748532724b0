//go:build cgo

package main

import (
	"crypto/tls"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// The program shows what its comment says.
func TestRun(t *testing.T) {
	needs.Program(t, "softhsm2-util")
	var out strings.Builder
	require.NoError(t, run(&out, t.TempDir()))
	lines := strings.Split(out.String(), "\n")
	require.Len(t, lines, 7, out.String())
	assert.Equal(t, "handshake: certificate of the first key", lines[0])
	assert.Equal(t, "event: loaded", lines[1])
	assert.Equal(t, "handshake: certificate of the second key", lines[2])
	assert.Contains(t, lines[3], "handshake: tls: failed to sign handshake: token example: ")
	assert.Contains(t, lines[4], "event: warning key")
	assert.Contains(t, lines[4], "handshakes fail because its key does not sign")
	assert.Equal(t, lines[2], lines[5])
}

// Without SoftHSM the program says what to install.
func TestNotInstalled(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, run(io.Discard, t.TempDir()), "apt-get install softhsm2")
}

// served is a manager with a key in a token for localhost, one in a file for file.test, and CAs of
// clients in a file.
type served struct {
	*certmanager.Manager
	device *softHSM
	ca     *tlstest.CA
	dir    string
	events chan certmanager.Event
}

func serve(t *testing.T) *served {
	t.Helper()
	needs.Program(t, "softhsm2-util")
	device, err := newSoftHSM(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(device.close)
	s := &served{device: device, ca: tlstest.NewCA(t), dir: t.TempDir(), events: make(chan certmanager.Event, 1000)}
	cert, key := s.ca.Issue(t, tlstest.Leaf{Names: []string{"file.test"}}).Files(t, s.dir, "file")
	s.issue(t, "first")
	s.clients(t, s.ca)
	s.Manager, err = certmanager.New(certmanager.Options{
		Source: certmanager.Sources{
			certmanager.Files{Cert: s.path("tls.crt"), KeyStore: device.token},
			certmanager.Files{Cert: cert, Key: key},
			certmanager.Files{ClientCAs: s.path("clients.crt")},
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	s.Subscribe(func(e certmanager.Event) { s.events <- e })
	return s
}

func (s *served) path(name string) string { return filepath.Join(s.dir, name) }

// issue puts a certificate of a new key in place.
func (s *served) issue(t *testing.T, name string) {
	t.Helper()
	public, err := s.device.newKey(name)
	require.NoError(t, err)
	pair := s.ca.Issue(t, tlstest.Leaf{CommonName: name, Names: []string{"localhost"}, PublicKey: public})
	require.NoError(t, tlstest.WriteFile(s.path("tls.crt"), pair.CertPEM, 0o644))
}

// clients trusts the clients of some CAs.
func (s *served) clients(t *testing.T, cas ...*tlstest.CA) {
	t.Helper()
	var bundle []byte
	for _, ca := range cas {
		bundle = append(bundle, ca.PEM()...)
	}
	require.NoError(t, tlstest.WriteFile(s.path("clients.crt"), bundle, 0o644))
}

// shake makes a handshake of a client of a CA.
func (s *served) shake(t *testing.T, name string, of *tlstest.CA) (string, error) {
	t.Helper()
	client := s.ca.ClientConfig(t, name)
	client.Certificates = []tls.Certificate{of.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: "client"}).Certificate()}
	return handshake(s.ServerTLS(), client)
}

func (s *served) next(t *testing.T, kind certmanager.Kind) certmanager.Event {
	t.Helper()
	for timeout := time.After(30 * time.Second); ; {
		select {
		case e := <-s.events:
			if e.Kind == kind {
				return e
			}
		case <-timeout:
			t.Fatalf("no event %s", kind)
		}
	}
}

// A certificate of a key that the token does not have is not put in service.
func TestKeyThatIsNotInTheToken(t *testing.T) {
	s := serve(t)
	foreign := s.ca.Issue(t, tlstest.Leaf{CommonName: "foreign"})
	require.NoError(t, tlstest.WriteFile(s.path("tls.crt"), foreign.CertPEM, 0o644))
	assert.ErrorContains(t, s.next(t, certmanager.Rejected).Err, "token example: it has no key of this certificate")
	name, err := s.shake(t, "localhost", s.ca)
	require.NoError(t, err)
	assert.Equal(t, "first", name)
	s.issue(t, "second")
	s.next(t, certmanager.Loaded)
	name, err = s.shake(t, "localhost", s.ca)
	require.NoError(t, err)
	assert.Equal(t, "second", name)
}

// The last good certificate stays when another is to follow while the token is out.
func TestRotationWithoutToken(t *testing.T) {
	s := serve(t)
	public, err := s.device.newKey("second")
	require.NoError(t, err)
	require.NoError(t, s.device.remove())
	pair := s.ca.Issue(t, tlstest.Leaf{CommonName: "second", Names: []string{"localhost"}, PublicKey: public})
	require.NoError(t, tlstest.WriteFile(s.path("tls.crt"), pair.CertPEM, 0o644))
	assert.ErrorContains(t, s.next(t, certmanager.Rejected).Err, "its key does not sign")
	require.NoError(t, s.device.insert())
	s.next(t, certmanager.Loaded)
	name, err := s.shake(t, "localhost", s.ca)
	require.NoError(t, err)
	assert.Equal(t, "second", name)
}

// hang keeps the library waiting for a lock of the token, until the returned function is called.
func (s *served) hang(t *testing.T) (release func()) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.device.folder, "*", "generation"))
	require.NoError(t, err)
	require.Len(t, paths, 1)
	file, err := os.OpenFile(paths[0], os.O_RDWR, 0)
	require.NoError(t, err)
	const ofdSetLock = 37 // F_OFD_SETLK: unlike other locks of POSIX it holds within a process
	require.NoError(t, syscall.FcntlFlock(file.Fd(), ofdSetLock, &syscall.Flock_t{Type: syscall.F_WRLCK}))
	release = func() { file.Close() }
	t.Cleanup(release)
	return release
}

// While a token hangs, handshakes of other keys, setters, changes of CAs and Close do not wait for
// it, and calls do not pile up in its library. When it answers again all is as before.
func TestTokenThatHangs(t *testing.T) {
	s, other := serve(t), tlstest.NewCA(t)
	release := s.hang(t)
	first := make(chan error, 1)
	go func() {
		_, err := handshake(s.ServerTLS(), s.ca.MutualClientConfig(t, "localhost", tlstest.Leaf{}))
		first <- err
	}()
	began := time.Now()
	_, err := s.shake(t, "file.test", s.ca)
	require.NoError(t, err)
	s.SetServerName("example.test")
	s.clients(t, other)
	require.Eventually(t, func() bool {
		_, err := s.shake(t, "file.test", s.ca)
		return err != nil
	}, 30*time.Second, 10*time.Millisecond, "the CA was removed")
	_, err = s.shake(t, "file.test", other)
	require.NoError(t, err)
	assert.Less(t, time.Since(began), 9*time.Second, "a signature may take 10")
	require.ErrorContains(t, <-first, "the key did not sign within 10s")
	assert.ErrorContains(t, s.next(t, certmanager.Warning).Err, "handshakes fail because its key does not sign")
	began = time.Now()
	for range 100 {
		_, err := s.shake(t, "localhost", other)
		require.ErrorContains(t, err, "the key has still not signed")
	}
	assert.Less(t, time.Since(began), 9*time.Second)
	release()
	require.Eventually(t, func() bool {
		_, err := s.shake(t, "localhost", other)
		return err == nil
	}, 30*time.Second, 20*time.Millisecond)

	release = s.hang(t)
	go handshake(s.ServerTLS(), s.ca.MutualClientConfig(t, "localhost", tlstest.Leaf{}))
	began = time.Now()
	require.NoError(t, s.Close())
	assert.Less(t, time.Since(began), 9*time.Second)
	release()
}
