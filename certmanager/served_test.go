package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/tlstest"
)

// The choice between keys agrees with crypto/tls, for real clients of all kinds.
func TestFindByKeyOfClient(t *testing.T) {
	ca := tlstest.NewCA(t)
	names := []string{"localhost", "127.0.0.2"}
	ecdsaPair, rsaPair, edPair := ca.Issue(t, tlstest.Leaf{Names: names}), ca.Issue(t, tlstest.Leaf{Names: names, Key: tlstest.RSA2048}), ca.Issue(t, tlstest.Leaf{Names: names, Key: tlstest.Ed25519})
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{rsaPair.Certificate(), edPair.Certificate(), ecdsaPair.Certificate()}}})
	ecdsaOnly := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for name, c := range map[string]struct {
		edit func(*tls.Config)
		want *tlstest.Pair
	}{
		"TLS 1.3":               {func(c *tls.Config) {}, ecdsaPair},
		"TLS 1.2":               {func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, ecdsaPair},
		"TLS 1.2 RSA":           {func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, rsaOnly }, rsaPair},
		"TLS 1.2 ECDSA":         {func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, ecdsaOnly }, ecdsaPair},
		"TLS 1.2 without P-256": {func(c *tls.Config) { c.MaxVersion, c.CurvePreferences = tls.VersionTLS12, []tls.CurveID{tls.X25519} }, edPair},
	} {
		t.Run(name, func(t *testing.T) {
			config := ca.ClientConfig(t, "localhost")
			c.edit(config)
			got := connect(t, m.ServerTLS(), config).ok(t)
			assert.True(t, c.want.Leaf.Equal(got.client.PeerCertificates[0]))
			config.ServerName = "127.0.0.2" // which asks for nothing, and was not dialled: the default has three keys too
			got = connect(t, m.ServerTLS(), config).ok(t)
			assert.True(t, c.want.Leaf.Equal(got.client.PeerCertificates[0]))
		})
	}
}

// A certificate that has ended, or whose issuer has, leaves its place to one that holds, from its
// end on. The client still gets one where all have ended, and where the one that holds is of no use
// to it.
func TestEndedCertificateIsNotPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		const hours = time.Hour
		brief := ca.Intermediate(t, func(template *x509.Certificate) {
			template.NotBefore, template.NotAfter = time.Now(), time.Now().Add(1*hours)
		})
		ends := func(ca *tlstest.CA, key tlstest.KeyType, hours time.Duration) *tlstest.Pair {
			return ca.Issue(t, tlstest.Leaf{Key: key, NotBefore: time.Now(), NotAfter: time.Now().Add(hours * time.Hour)})
		}
		chained, second, third := ends(brief, tlstest.ECDSAP256, 9), ends(ca, tlstest.Ed25519, 2), ends(ca, tlstest.RSA2048, 3)
		m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{chained.Certificate(), second.Certificate(), third.Certificate()}}})
		serves := func(want *tlstest.Pair, schemes ...tls.SignatureScheme) {
			t.Helper()
			for _, name := range []string{"localhost", ""} { // by name, and as the default
				cert, err := m.GetCertificateFunc()(&tls.ClientHelloInfo{ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: schemes})
				require.NoError(t, err)
				assert.Equal(t, want.Leaf.SerialNumber, cert.Leaf.SerialNumber, "%s %q", time.Now(), name)
			}
		}
		all := []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.Ed25519, tls.PSSWithSHA256}
		serves(chained, all...)
		time.Sleep(1 * hours)
		serves(chained, all...)
		time.Sleep(time.Second)
		serves(second, all...)
		serves(chained, tls.ECDSAWithP256AndSHA256)
		m.SetServerName("x") // the next snapshot knows it too
		serves(second, all...)
		time.Sleep(1 * hours)
		serves(third, all...)
		time.Sleep(1 * hours)
		serves(chained, all...)
		clock.Step(-90 * time.Minute) // the clock was wrong
		defer clock.Step(90 * time.Minute)
		time.Sleep(20 * time.Second)
		serves(second, all...)
	})
}
