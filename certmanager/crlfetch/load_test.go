package crlfetch

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Certificates are found wherever the wrapped source has them, each once.
func TestCertificatesOf(t *testing.T) {
	first, second := tlstest.NewCA(t), tlstest.NewCA(t)
	certOf := func(ca *tlstest.CA) *x509.Certificate {
		block, _ := pem.Decode(ca.PEM())
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		return cert
	}
	one, other := certOf(first), certOf(second)
	leaf := first.Issue(t, tlstest.Leaf{})
	part := &certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: leaf.Certificate()}},
		TrustDomains: map[string][]*x509.Certificate{"example.test": {other}},
		RootCAs:      []*x509.Certificate{other},
	}
	all := certificatesOf(&certmanager.Material{Parts: []*certmanager.Material{part, {ClientCAs: []*x509.Certificate{one}}}})
	assert.Contains(t, all, other)
	assert.Contains(t, all, one)
	seen := map[string]bool{}
	for _, cert := range all {
		assert.False(t, seen[string(cert.Raw)])
		seen[string(cert.Raw)] = true
	}
	assert.NotContains(t, issuersOf(part), leaf.Leaf)
}

// However many distribution points there are, so many are fetched, and so many warnings made.
func TestDistributionPointsAreBounded(t *testing.T) {
	s := &Source{Source: certmanager.Static{}, DistributionPoints: true}
	require.NoError(t, s.ready())
	points := func(scheme string, n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%s://ca.example.test/%d.crl", scheme, i))
		}
		return all
	}
	of := func(points []string) *certmanager.Material {
		return &certmanager.Material{RootCAs: []*x509.Certificate{{CRLDistributionPoints: points}}}
	}
	urls, warnings := s.want(of(points("http", maxURLs+1)))
	assert.Len(t, urls, maxURLs)
	require.Len(t, warnings, 1)
	assert.ErrorContains(t, warnings[0], "only the first 200 are fetched")
	urls, warnings = s.want(of(points("ldap", 20)))
	assert.Empty(t, urls)
	assert.Len(t, warnings, 11)
}
