package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func TestRevokedClientsAreRefused(t *testing.T) {
	ca := tlstest.NewCA(t)
	intermediate := ca.Intermediate(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	good, bad, below := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{}), intermediate.Issue(t, tlstest.Leaf{})
	client := func(pair *tlstest.Pair) *tls.Config {
		config := ca.ClientConfig(t, "localhost")
		config.Certificates = []tls.Certificate{pair.Certificate()}
		return config
	}
	m := newManager(t, certmanager.Options{Source: certmanager.Files{
		Cert: cert, Key: key, ClientCAs: write(t, dir, "ca.crt", append(ca.PEM(), intermediate.PEM()...)), RootCAs: filepath.Join(dir, "ca.crt"),
		CRLs: write(t, dir, "crl.pem", ca.CRL(t)),
	}})
	connect(t, m.ServerTLS(), client(bad)).ok(t)
	reload := func(lists ...[]byte) {
		var all []byte
		for _, list := range lists {
			all = append(all, list...)
		}
		write(t, dir, "crl.pem", all)
		require.NoError(t, m.Reload(t.Context()))
	}
	reload(ca.CRL(t, bad.Leaf))
	c := connect(t, m.ServerTLS(), client(bad)).refused(t)
	require.ErrorIs(t, c.serverErr, certmanager.ErrRevoked)
	connect(t, m.ServerTLS(), client(good)).ok(t)
	connect(t, m.ServerTLS(), client(below)).ok(t)

	reload(ca.CRL(t), intermediate.CRL(t, below.Leaf))
	require.ErrorIs(t, connect(t, m.ServerTLS(), client(below)).serverErr, certmanager.ErrRevoked)
	connect(t, m.ServerTLS(), client(bad)).ok(t)
	assert.Len(t, m.Status().CRLs, 2)

	// The list as DER, and for a server.
	reload(parseCRL(t, ca.CRL(t, m.GetCertificate().Leaf)).Raw)
	require.ErrorIs(t, connect(t, m.ServerTLS(), m.ClientTLS("localhost")).clientErr, certmanager.ErrRevoked)
}

// Where the intermediate itself is in the pool, a chain to the root goes through it as
// well: a revoked intermediate takes its leaves with it on that way.
func TestRevokedIntermediate(t *testing.T) {
	ca := tlstest.NewCA(t)
	intermediate := ca.Intermediate(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
		CRLs: []*x509.RevocationList{parseCRL(t, ca.CRL(t, intermediate.Certificate()))}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
	}})
	client := ca.ClientConfig(t, "localhost")
	client.Certificates = []tls.Certificate{intermediate.Issue(t, tlstest.Leaf{}).Certificate()}
	require.ErrorIs(t, connect(t, m.ServerTLS(), client).serverErr, certmanager.ErrRevoked)
}

func TestBadCRLs(t *testing.T) {
	ca := tlstest.NewCA(t)
	forged := parseCRL(t, ca.CRL(t)).Raw
	forged[len(forged)-1] ^= 1 // a byte of the signature
	for name, c := range map[string]struct {
		list []byte
		says string
	}{
		"forged":      {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: forged}), "signature"},
		"not a list":  {[]byte("nothing"), "crl.pem"},
		"another PEM": {ca.PEM(), "no revocation list"},
		"cut off":     {ca.CRL(t)[:200], "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := certmanager.New(certmanager.Options{Source: certmanager.Files{ClientCAs: write(t, dir, "ca.crt", ca.PEM()), CRLs: write(t, dir, "crl.pem", c.list)}})
			require.ErrorIs(t, err, certmanager.ErrInvalid)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestCRLOutOfDate(t *testing.T) {
	ca := tlstest.NewCA(t)
	old, err := ca.GenerateCRL(tlstest.CRL{ThisUpdate: time.Now().Add(-48 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)})
	require.NoError(t, err)
	source := certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
		CRLs: []*x509.RevocationList{parseCRL(t, old)}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
	}
	client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
	var log logBuffer
	soft := newManager(t, certmanager.Options{Source: source, Logger: log.logger()})
	connect(t, soft.ServerTLS(), client).ok(t)
	assert.True(t, soft.Status().CRLs[0].OutOfDate)
	eventually(t, "the event", func() bool { return strings.Contains(log.String(), "event=crl-out-of-date") })
	hard := newManager(t, certmanager.Options{Source: source, RequireFreshCRLs: true})
	require.ErrorIs(t, connect(t, hard.ServerTLS(), client).serverErr, certmanager.ErrCRLOutOfDate)

	// A newer list of the same issuer takes the place of the old one.
	source.CRLs = append(source.CRLs, parseCRL(t, ca.CRL(t)))
	both := newManager(t, certmanager.Options{Source: source, RequireFreshCRLs: true})
	connect(t, both.ServerTLS(), client).ok(t)
}

// A list says nothing about the certificates of another CA with the same name.
func TestCRLOfATwin(t *testing.T) {
	ca := tlstest.NewCA(t)
	twin := tlstest.NewCA(t, func(template *x509.Certificate) { template.Subject = ca.Certificate().Subject })
	both := ca.Pool()
	both.AddCert(twin.Certificate())
	pair := ca.Issue(t, tlstest.Leaf{})
	newer, err := twin.GenerateCRL(tlstest.CRL{Revoked: []*x509.Certificate{pair.Leaf}, ThisUpdate: time.Now()})
	require.NoError(t, err)
	source := certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: both,
		CRLs: []*x509.RevocationList{parseCRL(t, newer)}, CRLIssuers: []*x509.Certificate{ca.Certificate(), twin.Certificate()},
	}
	client := ca.ClientConfig(t, "localhost")
	client.Certificates = []tls.Certificate{pair.Certificate()}
	connect(t, newManager(t, certmanager.Options{Source: source}).ServerTLS(), client).ok(t)
	source.CRLs = append(source.CRLs, parseCRL(t, ca.CRL(t, pair.Leaf)))
	require.ErrorIs(t, connect(t, newManager(t, certmanager.Options{Source: source}).ServerTLS(), client).serverErr, certmanager.ErrRevoked)
}
