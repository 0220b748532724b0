package docs_test

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// The test that testing.md builds up.
func TestServer(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{Names: []string{"server.example.test"}}).Files(t, dir, "server")
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}, PollInterval: time.Second})
	require.NoError(t, err)
	defer certs.Close()
	s, stop := serve(meta.TCPServerOptions{CertManager: certs}, echo)
	defer stop()
	conn, err := tls.Dial("tcp", s.listen, ca.ClientConfig(t, "server.example.test"))
	require.NoError(t, err)
	defer conn.Close()

	for _, peer := range tlstest.HostileClients {
		raw, err := net.Dial("tcp", s.listen)
		require.NoError(t, err)
		_, err = peer.Visit(raw, ca.ClientConfig(t, "server.example.test"), 200*time.Millisecond)
		t.Logf("%s: %v", peer.Name, err)
	}
	_, err = conn.Write([]byte("hello"))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 5))
	require.NoError(t, err, "everybody else is served")

	for _, replacement := range tlstest.Replacements {
		p := ca.Issue(t, tlstest.Leaf{CommonName: replacement.Name})
		require.NoError(t, replacement.Replace(dir, map[string][]byte{"server.crt": p.CertPEM, "server.key": p.KeyPEM}, nil))
		require.Eventually(t, func() bool {
			return certs.GetCertificate().Leaf.Subject.CommonName == replacement.Name
		}, 30*time.Second, 10*time.Millisecond)
	}
}
