package certmanager

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// named makes a certificate that is good for lookups only.
func named(key keyKind, names ...string) *certificate {
	leaf := &x509.Certificate{}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	return &certificate{tls: tls.Certificate{Leaf: leaf}, key: key, curve: tls.CurveP256, server: true, origin: strings.Join(names, " ")}
}

// addressed is a connection that has come to a local address.
type addressed struct {
	net.Conn
	local net.Addr
}

func (a addressed) LocalAddr() net.Addr { return a.local }

func TestFindByName(t *testing.T) {
	index := newNames([]*certificate{
		named(ecdsaKey, "default.test"),
		named(ecdsaKey, "a.test"),
		named(ecdsaKey, "*.a.test"),
		named(ecdsaKey, "x.a.test"),
		named(ecdsaKey, "Big.Test", "xn--bcher-kva.test"),
		named(ecdsaKey, "*.xn--bcher-kva.test"),
		named(ecdsaKey, "under_score.test"),
		named(ecdsaKey, "10.0.0.1", "::2"),
	}, nil)
	for name, want := range map[string]string{
		"":                             "default.test",
		"default.test":                 "default.test",
		"unknown.test":                 "default.test",
		"test":                         "default.test",
		"a.test":                       "a.test",
		"A.TEST":                       "a.test",
		"a.test.":                      "a.test",
		"x.a.test":                     "x.a.test",
		"X.A.test":                     "x.a.test",
		"y.a.test":                     "*.a.test",
		"Y.a.Test.":                    "*.a.test",
		"y.x.a.test":                   "default.test", // a wildcard is one label
		".a.test":                      "default.test", // and not none
		"*.a.test":                     "*.a.test",
		"big.test":                     "Big.Test xn--bcher-kva.test",
		"bücher.test":                  "Big.Test xn--bcher-kva.test",
		"BÜCHER.test":                  "Big.Test xn--bcher-kva.test",
		"Abücher.test":                 "default.test",
		"y.bücher.test":                "*.xn--bcher-kva.test",
		"xn--bcher-kva.test":           "Big.Test xn--bcher-kva.test",
		"under_score.test":             "under_score.test",
		"UNDER_score.test":             "under_score.test",
		strings.Repeat("a.", 200):      "default.test",
		strings.Repeat("A", 253) + ".": "default.test",
	} {
		assert.Equal(t, want, index.find(&tls.ClientHelloInfo{ServerName: name}).origin, "%q", name)
	}
	for addr, want := range map[string]string{
		"10.0.0.1":        "10.0.0.1 ::2",
		"::ffff:10.0.0.1": "10.0.0.1 ::2",
		"::2":             "10.0.0.1 ::2",
		"10.0.0.2":        "default.test",
	} {
		hello := &tls.ClientHelloInfo{Conn: addressed{local: &net.TCPAddr{IP: net.ParseIP(addr)}}}
		assert.Equal(t, want, index.find(hello).origin, addr)
		hello.ServerName = "a.test"
		assert.Equal(t, "a.test", index.find(hello).origin, "a name goes before the address")
	}
	zoned := &net.TCPAddr{IP: net.ParseIP("::2"), Zone: "eth0"} // as link-local addresses are
	assert.Equal(t, "10.0.0.1 ::2", index.find(&tls.ClientHelloInfo{Conn: addressed{local: zoned}}).origin)
	assert.Nil(t, newNames(nil, nil).find(&tls.ClientHelloInfo{}))
	client := named(ecdsaKey, "client.test")
	client.server = false
	assert.Nil(t, newNames([]*certificate{client}, nil).find(&tls.ClientHelloInfo{ServerName: "client.test"}))
}

// A renewal beside the certificate that it renews is served, whatever their order.
func TestTheLastToEndIsServed(t *testing.T) {
	ends := func(key keyKind, hours int) *certificate {
		c := named(key, "a.test")
		c.tls.Leaf.NotAfter = time.Unix(0, 0).Add(time.Duration(hours) * time.Hour)
		return c
	}
	early, late, rsa, twin := ends(ecdsaKey, 1), ends(ecdsaKey, 2), ends(rsaKey, 3), ends(ecdsaKey, 2)
	for _, certs := range [][]*certificate{{early, late, rsa, twin}, {late, rsa, twin, early}, {rsa, late, early, twin}} {
		assert.Equal(t, []*certificate{late, twin, early, rsa}, newNames(certs, nil).lookup("a.test").list())
	}
}

func TestPreferredAloneServesItsNames(t *testing.T) {
	preferred := named(rsaKey, "a.test")
	index := newNames([]*certificate{named(ecdsaKey, "a.test", "b.test")}, preferred)
	assert.Equal(t, candidates{first: preferred}, index.lookup("a.test"))
	assert.Equal(t, "a.test b.test", index.lookup("b.test").first.origin)
	assert.Equal(t, preferred, index.fallback.first)
}

// The choice between keys agrees with crypto/tls, for real clients of all kinds.
func TestFindByKeyOfClient(t *testing.T) {
	ca := tlstest.NewCA(t)
	names := []string{"localhost", "127.0.0.2"}
	ecdsaPair, rsaPair, edPair := ca.Issue(t, tlstest.Leaf{Names: names}), ca.Issue(t, tlstest.Leaf{Names: names, Key: tlstest.RSA2048}), ca.Issue(t, tlstest.Leaf{Names: names, Key: tlstest.Ed25519})
	m := newManager(t, Options{Source: Static{Certificates: []tls.Certificate{rsaPair.Certificate(), edPair.Certificate(), ecdsaPair.Certificate()}}})
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
		m := newManager(t, Options{Source: Static{Certificates: []tls.Certificate{chained.Certificate(), second.Certificate(), third.Certificate()}}})
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
		time.Sleep(2 * defaultPollInterval)
		serves(second, all...)
	})
}

// supportedBy answers as crypto/tls does.
func TestSupportedByAgreesWithTLS(t *testing.T) {
	ca := tlstest.NewCA(t)
	restricted := ca.Issue(t, tlstest.Leaf{Key: tlstest.RSA2048}).Certificate()
	restricted.SupportedSignatureAlgorithms = []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256} // as some HSMs are
	all := []tls.Certificate{selfSigned(t, elliptic.P384(), nil), selfSigned(t, elliptic.P521(), nil), restricted}
	for _, key := range []tlstest.KeyType{tlstest.ECDSAP256, tlstest.RSA2048, tlstest.Ed25519} {
		all = append(all, ca.Issue(t, tlstest.Leaf{Key: key}).Certificate())
	}
	var certs []*certificate
	for _, cert := range all {
		c, err := newCertificate(cert, "")
		require.NoError(t, err)
		certs = append(certs, c)
	}
	schemes := []tls.SignatureScheme{
		tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512, tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
		tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.Ed25519,
	}
	for _, c := range certs {
		for _, scheme := range schemes {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				for _, curve := range []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521} {
					for _, suite := range allSuites {
						hello := &tls.ClientHelloInfo{
							SupportedVersions: []uint16{version}, SignatureSchemes: []tls.SignatureScheme{scheme},
							SupportedCurves: []tls.CurveID{curve}, CipherSuites: []uint16{suite}, SupportedPoints: []uint8{0},
						}
						assert.Equal(t, hello.SupportsCertificate(&c.tls) == nil, c.supportedBy(hello),
							"key %d, %v, %x, %v, %s", c.key, scheme, version, curve, tls.CipherSuiteName(suite))
					}
				}
			}
		}
	}
}

func manyNames(n int, keys ...keyKind) *names {
	var certs []*certificate
	for i := range n {
		for _, key := range keys {
			certs = append(certs, named(key, fmt.Sprintf("host%d.example.test", i), fmt.Sprintf("*.zone%d.example.test", i)))
		}
	}
	return newNames(certs, nil)
}

func lookups() map[string]*tls.ClientHelloInfo {
	both := []tls.SignatureScheme{tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256}
	hellos := make(map[string]*tls.ClientHelloInfo)
	for kind, name := range map[string]string{
		"exact": "host0.example.test", "wildcard": "www.zone0.example.test", "mixed case": "Host0.Example.Test",
		"unknown": "www.example.org", "none": "",
	} {
		hellos[kind] = &tls.ClientHelloInfo{
			ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: both,
			Conn: addressed{local: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}},
		}
	}
	return hellos
}

func TestLookupDoesNotAllocate(t *testing.T) {
	for _, n := range []int{1, 100_000} {
		s := &snapshot{names: manyNames(n, ecdsaKey, rsaKey)}
		for kind, hello := range lookups() {
			assert.Zero(t, testing.AllocsPerRun(100, func() { s.getCertificate(hello) }), "%d names, %s", n, kind)
		}
	}
}

// FuzzLookup: a lookup by any spelling finds what the normal spelling finds.
func FuzzLookup(f *testing.F) {
	needs.Corpus(f)
	index := newNames([]*certificate{named(ecdsaKey, "a.test"), named(ecdsaKey, "*.b.test"), named(ecdsaKey, "xn--bcher-kva.test")}, nil)
	for _, seed := range []string{"a.test", "A.Test.", "x.b.test", "*.b.test", "bücher.test", "..", "Äb.test", "\x00", ".b.test"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		found := index.lookup(name)
		for _, c := range found.list() {
			ascii := trust.NormalName(name)
			if !trust.MatchesDNS(c.origin, ascii) && c.origin != ascii {
				t.Errorf("%q found %q", name, c.origin)
			}
		}
		if upper := strings.ToUpper(name); isASCII(name) && len(index.lookup(upper).list()) != len(found.list()) {
			t.Errorf("%q and %q differ", name, upper)
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}
