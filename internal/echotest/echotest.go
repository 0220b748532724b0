// Package echotest is a mutual TLS echo server of actors, on real files and a real port, for tests
// of what watches one.
package echotest

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// Server is the echo server. It trusts clients of CA and of Other, and has a revocation list of CA.
type Server struct {
	CA, Other *tlstest.CA
	Files     certmanager.Files
	Manager   *certmanager.Manager
	Meta      gen.MetaBehavior
	Addr      string

	dir string
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{CA: tlstest.NewCA(t), Other: tlstest.NewCA(t), dir: t.TempDir()}
	path := func(name string) string { return filepath.Join(s.dir, name) }
	s.Files = certmanager.Files{Cert: path("server.crt"), Key: path("server.key"), ClientCAs: path("clients.crt"), CRLs: path("crl.pem")}
	s.CA.Issue(t, tlstest.Leaf{}).Files(t, s.dir, "server")
	require.NoError(t, os.WriteFile(path("clients.crt"), append(s.CA.PEM(), s.Other.PEM()...), 0o600))
	require.NoError(t, os.WriteFile(path("crl.pem"), s.CA.CRL(t), 0o600))
	var err error
	s.Manager, err = certmanager.New(certmanager.Options{Source: s.Files, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Manager.Close()) })
	s.Meta, err = meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", CertManager: s.Manager, MaxConnections: 100})
	require.NoError(t, err)
	s.Addr = meta.Stats(s.Meta).Listen
	node, err := ergo.StartNode("echo@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
	require.NoError(t, err)
	t.Cleanup(node.Stop)
	_, err = node.Spawn(func() gen.ProcessBehavior { return &echo{server: s.Meta} }, gen.ProcessOptions{})
	require.NoError(t, err)
	return s
}

type echo struct {
	act.Actor
	server gen.MetaBehavior
}

func (e *echo) Init(...any) error {
	_, err := e.SpawnMeta(e.server, gen.MetaOptions{})
	if err != nil {
		e.server.Terminate(err)
	}
	return err
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = e.SendAlias(m.ID, m)
	}
	return nil
}

// Dial connects with a certificate of ca, nil for none, and sends five bytes there and back. The
// connection is closed with the test.
func (s *Server) Dial(t testing.TB, ca *tlstest.CA, client tlstest.Leaf) (*tls.Conn, error) {
	t.Helper()
	config := s.CA.ClientConfig(t, "localhost")
	if ca != nil {
		client.Usage = tlstest.ClientOnly
		cert := ca.Issue(t, client).Certificate()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	raw, err := net.Dial("tcp", s.Addr)
	require.NoError(t, err)
	t.Cleanup(func() { raw.Close() })
	conn := tls.Client(raw, config)
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(conn, make([]byte, 5))
	return conn, err
}

// Rotate replaces the server's certificate and returns the serial of the new one once it is served.
func (s *Server) Rotate(t testing.TB) (serial string) {
	t.Helper()
	before := s.Manager.Status().Generation
	s.CA.Issue(t, tlstest.Leaf{}).Files(t, s.dir, "server")
	require.Eventually(t, func() bool { return s.Manager.Status().Generation > before }, 30*time.Second, 10*time.Millisecond)
	return s.Manager.Status().Certificates[0].Serial
}

// Break writes nonsense in the place of the server's certificate, and waits until that was
// rejected.
func (s *Server) Break(t testing.TB) {
	t.Helper()
	before := s.Manager.Status().Rejections
	require.NoError(t, os.WriteFile(s.Files.Cert, []byte("no PEM"), 0o600))
	require.Eventually(t, func() bool { return s.Manager.Status().Rejections > before }, 30*time.Second, 10*time.Millisecond)
}
