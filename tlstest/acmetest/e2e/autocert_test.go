package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xacme "golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// A restart asks the CA for nothing.
func TestRestartFromTheCache(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	cache := autocert.DirCache(t.TempDir())
	w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache})
	w.serve(t)
	leaf := w.mustDial(t, name)
	require.NoError(t, w.Close())
	ca.Refuse(http.StatusServiceUnavailable, 0) // not even reachable
	again := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache})
	again.serve(t)
	assert.True(t, leaf.Equal(again.mustDial(t, name)))
	assert.Equal(t, 1, ca.Orders())
}

// A folder of autocert.Manager is taken over, and given back.
func TestTakeOverFromAutocert(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	cache := autocert.DirCache(t.TempDir())
	plain := func() *autocert.Manager {
		return &autocert.Manager{
			Prompt: autocert.AcceptTOS, Cache: cache, HostPolicy: autocert.HostWhitelist(name),
			Client: &xacme.Client{DirectoryURL: ca.Directory(), HTTPClient: ca.HTTPClient()},
		}
	}
	before := &world{ca: ca, addr: freeAddr(t), events: &eventLog{}}
	ca.TLSALPN01(before.addr)
	before.serve(t, plain().TLSConfig())
	leaf := before.mustDial(t, name)
	require.Equal(t, 1, ca.Orders())

	w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache})
	w.serve(t)
	assert.True(t, leaf.Equal(w.mustDial(t, name)))
	assert.Equal(t, 1, ca.Orders(), "no new order")
	require.NoError(t, w.Close())

	renewed := start(t, ca, &acme.Source{Domains: []string{name, other}, Cache: cache})
	require.NoError(t, renewed.Close())
	assert.Equal(t, 1, ca.Accounts(), "the account is taken over too")
	after := &world{ca: ca, addr: freeAddr(t), events: &eventLog{}}
	after.serve(t, plain().TLSConfig())
	assert.True(t, leaf.Equal(after.mustDial(t, name)), "autocert reads what we leave")
}

// autocert keeps an ECDSA and an RSA certificate of a name whose clients know one or the other.
// Each is taken over, whichever type of key is asked for.
func TestTakeOverBothKeyTypes(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.Start(t)
	cache := autocert.DirCache(t.TempDir())
	before := &world{ca: ca, addr: freeAddr(t), events: &eventLog{}}
	ca.TLSALPN01(before.addr)
	before.serve(t, (&autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: cache, HostPolicy: autocert.HostWhitelist(name),
		Client: &xacme.Client{DirectoryURL: ca.Directory(), HTTPClient: ca.HTTPClient()},
	}).TLSConfig())
	onlyRSA := func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	}
	leaves := map[acme.KeyType]*x509.Certificate{
		acme.ECDSAP256: before.mustDial(t, name), acme.RSA2048: before.mustDial(t, name, onlyRSA),
	}
	require.Equal(t, 2, ca.Orders())
	require.Equal(t, x509.RSA, leaves[acme.RSA2048].PublicKeyAlgorithm)
	for key, leaf := range leaves {
		w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache, Key: key})
		w.serve(t)
		assert.True(t, leaf.Equal(w.mustDial(t, name)))
		assert.Empty(t, w.events.of(certmanager.CacheFailed))
	}
	assert.Equal(t, 2, ca.Orders(), "no new order")
	assert.Equal(t, 1, ca.Accounts())
}

// A user's own autocert.Manager is a source, with its challenges.
func TestAutocertAsASource(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	plain := &autocert.Manager{
		Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(name),
		Client: &xacme.Client{DirectoryURL: ca.Directory(), HTTPClient: ca.HTTPClient()},
	}
	standIn, leaf := fallback(t)
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Sources{standIn, certmanager.Func(plain.GetCertificate)}})
	require.NoError(t, err)
	defer m.Close()
	w := &world{Manager: m, ca: ca, addr: freeAddr(t), events: &eventLog{}}
	ca.TLSALPN01(w.addr)
	w.serve(t)
	w.mustDial(t, name)
	assert.True(t, leaf.Equal(w.mustDial(t, "unknown.example.test", unverified)))
	assert.Equal(t, 1, ca.Orders())
}
