package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// cacheEntry makes a cache entry.
func cacheEntry(t testing.TB, name string, kind tlstest.KeyType) (tls.Certificate, []byte) {
	t.Helper()
	pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{Names: []string{name}, Key: kind})
	data, err := encodeCached(leafOf(pair.Certificate()))
	require.NoError(t, err)
	return pair.Certificate(), data
}

func leafOf(cert tls.Certificate) *tls.Certificate { return &cert }

func TestCacheLayout(t *testing.T) {
	assert.Equal(t, "a.example.test", certCacheKey("a.example.test", ECDSAP256))
	assert.Equal(t, "a.example.test", certCacheKey("a.example.test", ECDSAP384))
	assert.Equal(t, "a.example.test+rsa", certCacheKey("a.example.test", RSA2048))
	assert.Equal(t, "a.example.test+token", tokenCertCacheKey("a.example.test"))
	assert.Equal(t, "abc+http-01", httpTokenCacheKey("/.well-known/acme-challenge/abc"))
	for kind, block := range map[tlstest.KeyType]string{tlstest.ECDSAP256: "EC", tlstest.RSA2048: "RSA"} {
		cert, data := cacheEntry(t, "a.example.test", kind)
		assert.True(t, strings.HasPrefix(string(data), "-----BEGIN "+block+" PRIVATE KEY-----"))
		back, err := decodeCached(data)
		require.NoError(t, err)
		assert.Equal(t, cert.Certificate, back.Certificate)
		assert.True(t, cert.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }).Equal(back.PrivateKey))

		// autocert accepts it: its Manager serves it without a CA.
		cache := autocert.DirCache(t.TempDir())
		key := "a.example.test"
		hello := &tls.ClientHelloInfo{ServerName: key, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
		if kind == tlstest.RSA2048 {
			key, hello.CipherSuites = key+"+rsa", []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}
		require.NoError(t, cache.Put(t.Context(), key, data))
		served, err := (&autocert.Manager{Cache: cache, Prompt: autocert.AcceptTOS}).GetCertificate(hello)
		require.NoError(t, err)
		assert.Equal(t, cert.Certificate, served.Certificate)
	}
}

func TestDecodeCached(t *testing.T) {
	_, whole := cacheEntry(t, "a.example.test", tlstest.ECDSAP256)
	for _, data := range []string{"", "nonsense", string(whole[:50]), string(whole[:len(whole)-20]), string(whole) + "tail"} {
		_, err := decodeCached([]byte(data))
		assert.ErrorIs(t, err, errUnreadable)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(func() any { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k }())
	require.NoError(t, err)
	_, err = decodeKey(pemBlock("PRIVATE KEY", pkcs8))
	require.NoError(t, err)
	_, err = decodeKey(pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k }())))
	require.NoError(t, err)
}

func FuzzDecodeCached(f *testing.F) {
	needs.Corpus(f)
	_, whole := cacheEntry(f, "a.example.test", tlstest.ECDSAP256)
	f.Add(whole)
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := decodeCached(data)
		if err == nil && (cert.Leaf == nil || cert.PrivateKey == nil || len(cert.Certificate) == 0) {
			t.Fatal("half an entry")
		}
	})
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
