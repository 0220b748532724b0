package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A bundle whose names do not fit a CertificateRequest lets its clients in, and nobody else, in
// both versions, resumed or not.
func TestManyClientCAs(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	bundle := []*x509.Certificate{ca.Certificate()}
	for i := range 20 {
		organization := make([]string, 70)
		for j := range organization {
			organization[j] = fmt.Sprintf("%03d %s", j, strings.Repeat("x", 55))
		}
		bundle = append(bundle, tlstest.NewCA(t, func(c *x509.Certificate) {
			c.Subject.CommonName, c.Subject.Organization = fmt.Sprint("CA ", i), organization
		}).Certificate())
	}
	pool := x509.NewCertPool()
	for _, cert := range bundle {
		pool.AddCert(cert)
	}
	own := ca.Issue(t, tlstest.Leaf{}).Certificate()
	for name, source := range map[string]certmanager.Source{
		"certificates": &pushed{material: &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: own}}, ClientCAs: bundle}},
		"a pool":       certmanager.Static{Certificates: []tls.Certificate{own}, ClientCAs: pool},
		"set later":    certmanager.Static{Certificates: []tls.Certificate{own}, ClientCAs: ca.Pool()},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				m, err := certmanager.New(certmanager.Options{Source: source, Logger: slog.New(slog.DiscardHandler), ClientRule: certmanager.CommonName("alice")})
				require.NoError(t, err)
				defer m.Close()
				if name == "set later" {
					m.SetClientCAs(pool)
				}
				client := func(issuer *tlstest.CA, name string) *tls.Config {
					shown := issuer.Issue(t, tlstest.Leaf{CommonName: name}).Certificate()
					return &tls.Config{MinVersion: version, MaxVersion: version, RootCAs: ca.Pool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1),
						GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }}
				}
				alice := client(ca, "alice")
				for i := range 3 {
					state, serverErr, err := meet(t, m.ServerTLS(), alice)
					require.NoError(t, serverErr)
					require.NoError(t, err)
					assert.Equal(t, i > 0, state.DidResume)
				}
				for what, config := range map[string]*tls.Config{
					"another CA":     client(other, "alice"),
					"another name":   client(ca, "bob"),
					"no certificate": {MinVersion: version, MaxVersion: version, RootCAs: ca.Pool(), ServerName: "localhost"},
				} {
					for range 2 {
						_, serverErr, _ := meet(t, m.ServerTLS(), config)
						assert.Error(t, serverErr, what)
					}
				}
				// A session does not outlive its CA either.
				m.SetClientCAs(other.Pool())
				_, serverErr, _ := meet(t, m.ServerTLS(), alice)
				assert.Error(t, serverErr)
			})
		}
	}
}
