package certmanager_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
)

// What is signed with SHA-1 is called so, not out of order: nobody looks at a root's signature; the
// rest of a chain is refused; of a leaf that stands alone it is a warning.
func TestSHA1(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	sign := func(name string, parent *x509.Certificate, algorithm x509.SignatureAlgorithm) *x509.Certificate {
		t.Helper()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, SignatureAlgorithm: algorithm,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			BasicConstraintsValid: true, IsCA: name != "leaf", SubjectKeyId: []byte(name), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if name == "leaf" {
			template.DNSNames = []string{"localhost"}
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	const sha1, sha256 = x509.SHA1WithRSA, x509.SHA256WithRSA
	root := sign("root", nil, sha1)
	ca, oldCA := sign("ca", root, sha256), sign("ca", root, sha1)
	for name, c := range map[string]struct {
		chain           []*x509.Certificate
		refused, warned string
	}{
		"root":         {chain: []*x509.Certificate{sign("leaf", ca, sha256), ca, root}},
		"intermediate": {chain: []*x509.Certificate{sign("leaf", oldCA, sha256), oldCA, root}, refused: `"CN=ca"`},
		"leaf":         {chain: []*x509.Certificate{sign("leaf", ca, sha1), ca, root}, refused: `"CN=leaf"`},
		"leaf alone":   {chain: []*x509.Certificate{sign("leaf", root, sha1)}, warned: `CN=leaf`},
	} {
		t.Run(name, func(t *testing.T) {
			cert := tls.Certificate{PrivateKey: crypto.Signer(key)}
			for _, link := range c.chain {
				cert.Certificate = append(cert.Certificate, link.Raw)
			}
			l := new(loggedManager)
			roots := x509.NewCertPool()
			roots.AddCert(root)
			m, err := certmanager.New(certmanager.Options{
				Source: certmanager.Static{Certificates: []tls.Certificate{cert}, RootCAs: roots}, Logger: l.log.logger(),
			})
			if c.refused != "" {
				require.ErrorIs(t, err, certmanager.ErrInvalid)
				assert.ErrorContains(t, err, c.refused)
				assert.ErrorContains(t, err, "SHA1-RSA")
				return
			}
			require.NoError(t, err)
			defer m.Close()
			if c.warned == "" {
				assert.Empty(t, l.warnings())
				return
			}
			require.NotEmpty(t, l.warnings()) // the second is that its chain builds to no root
			assert.Contains(t, l.warnings()[0], c.warned)
			assert.Contains(t, l.warnings()[0], "SHA1-RSA")
		})
	}
}

// Lists with SHA-1 are used. One of a CA that may not sign lists is refused and says so.
func TestListOfAWrongSignature(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ca := func(usage x509.KeyUsage) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			BasicConstraintsValid: true, IsCA: true, SubjectKeyId: []byte("ca"), KeyUsage: usage,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	signs, mute := ca(x509.KeyUsageCertSign|x509.KeyUsageCRLSign), ca(x509.KeyUsageCertSign)
	list := func(algorithm x509.SignatureAlgorithm) *x509.RevocationList {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour), SignatureAlgorithm: algorithm,
		}, signs, key)
		require.NoError(t, err)
		list, err := x509.ParseRevocationList(der)
		require.NoError(t, err)
		return list
	}
	for _, c := range []struct {
		issuer    *x509.Certificate
		algorithm x509.SignatureAlgorithm
		says      string // empty: it is used
	}{
		{signs, x509.SHA256WithRSA, ""},
		{signs, x509.SHA1WithRSA, ""}, // more is refused with it than without
		{mute, x509.SHA256WithRSA, "cannot sign this kind"},
	} {
		m, err := tryNew(certmanager.Options{Source: certmanager.Static{
			RootCAs: x509.NewCertPool(), CRLs: []*x509.RevocationList{list(c.algorithm)}, CRLIssuers: []*x509.Certificate{c.issuer},
		}})
		if c.says == "" {
			require.NoError(t, err)
			assert.Len(t, m.Status().CRLs, 1)
			m.Close()
			continue
		}
		require.ErrorIs(t, err, certmanager.ErrInvalid)
		assert.ErrorContains(t, err, c.says)
	}
}
