package certmanager

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/needs"
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
	return &certificate{tls: tls.Certificate{Leaf: leaf}, chain: []*x509.Certificate{leaf}, key: key, server: true, origin: strings.Join(names, " ")}
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
	index := newNames([]*certificate{preferred, named(ecdsaKey, "a.test", "b.test")}, preferred)
	assert.Equal(t, candidates{first: preferred}, index.lookup("a.test"))
	assert.Equal(t, "a.test b.test", index.lookup("b.test").first.origin)
	assert.Equal(t, preferred, index.fallback.first)
}

func manyNames(n int) *names {
	var certs []*certificate
	for i := range n {
		certs = append(certs, named(ecdsaKey, fmt.Sprintf("host%d.example.test", i), fmt.Sprintf("*.zone%d.example.test", i)))
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
		s := &snapshot{names: manyNames(n), in: inputs{material: &material{}}}
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

// selfSigned makes a certificate of which everything can be wrong.
func selfSigned(t *testing.T, curve elliptic.Curve, edit func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	if edit != nil {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
