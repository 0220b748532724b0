package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Whoever is not trusted has an issuer, and the operator is told which, and what the bundle has
// that is like it.
func TestTheMissingIssuerIsNamed(t *testing.T) {
	name := func(cn string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject.CommonName = cn }
	}
	ours := tlstest.NewCA(t, name("the root"))
	cert, key := ours.Issue(t, tlstest.Leaf{}).Files(t, t.TempDir(), "server")
	bundle := write(t, t.TempDir(), "ca.pem", ours.PEM())
	intermediate := tlstest.NewCA(t, name("the root")).Intermediate(t, name("the intermediate"))
	for _, version := range versions {
		for _, test := range []struct {
			ca   *tlstest.CA
			says []string
		}{
			{tlstest.NewCA(t, name("the root")), []string{`no CA is known with the name "CN=the root"`, "the one of that name (serial ", "has another key"}},
			{tlstest.NewCA(t, name("an unknown")), []string{`no CA is known with the name "CN=an unknown"`}},
			{intermediate, []string{`no CA is known with the name "CN=the root"`, "has another key"}},
		} {
			m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key, ClientCAs: bundle, RootCAs: bundle}})
			require.NoError(t, err)
			refused := collect(m)

			// A client: crypto/tls refuses it by itself, and the server reports that.
			client := ours.ClientConfig(t, "localhost")
			pair := test.ca.Issue(t, tlstest.Leaf{CommonName: "mallory"}).Certificate()
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			client.MaxVersion = version
			c := connect(t, m.ServerTLS(), client)
			require.Error(t, c.serverErr)
			m.ReportRefused(c.serverErr, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5})

			// A server that this program calls.
			server := &tls.Config{Certificates: []tls.Certificate{test.ca.Issue(t, tlstest.Leaf{}).Certificate()}, MaxVersion: version}
			c = connect(t, server, m.ClientTLS("localhost"))
			require.ErrorIs(t, c.clientErr, certmanager.ErrUntrusted)

			eventually(t, "the events", func() bool { return len(refused(certmanager.PeerRefused)) == 2 })
			for _, e := range refused(certmanager.PeerRefused) {
				assert.ErrorIs(t, e.Err, certmanager.ErrUntrusted)
				for _, text := range test.says {
					assert.ErrorContains(t, e.Err, text)
				}
			}
			for _, text := range test.says {
				assert.ErrorContains(t, c.clientErr, text)
			}
			require.NoError(t, m.Close())
		}
	}
}
