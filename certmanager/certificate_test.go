package certmanager_test

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// What a peer would refuse in a chain is refused before.
func TestBadChains(t *testing.T) {
	root := tlstest.NewCA(t)
	between := root.Intermediate(t)
	below := between.Intermediate(t)
	chain := below.Issue(t, tlstest.Leaf{}).Certificate()
	with := func(certificates ...[]byte) tls.Certificate {
		return tls.Certificate{Certificate: certificates, PrivateKey: chain.PrivateKey}
	}
	leafDER, belowDER, betweenDER := chain.Certificate[0], chain.Certificate[1], chain.Certificate[2]
	ended := root.Intermediate(t, func(template *x509.Certificate) {
		template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	early := root.Intermediate(t, func(template *x509.Certificate) { template.NotBefore = time.Now().Add(time.Hour) })
	for name, c := range map[string]struct {
		cert tls.Certificate
		is   error
		says string
	}{
		"good":                {chain, nil, ""},
		"with the root":       {with(append(slices.Clone(chain.Certificate), root.Certificate().Raw)...), nil, ""},
		"issuers reversed":    {with(leafDER, betweenDER, belowDER), nil, ""},
		"one missing":         {with(leafDER, betweenDER), certmanager.ErrInvalid, "is missing"},
		"another CA's":        {with(leafDER, tlstest.NewCA(t).Certificate().Raw), certmanager.ErrInvalid, "is missing"},
		"issuer first":        {with(belowDER, leafDER), nil, ""},
		"without the leaf":    {with(belowDER, betweenDER), certmanager.ErrMismatch, ""},
		"issuer ended":        {ended.Issue(t, tlstest.Leaf{}).Certificate(), certmanager.ErrExpired, "ended"},
		"issuer not begun":    {early.Issue(t, tlstest.Leaf{}).Certificate(), certmanager.ErrNotYetValid, "begins"},
		"not DER":             {with(leafDER, []byte{1}), certmanager.ErrInvalid, ""},
		"self-signed":         {certmanager.XSelfSigned(t, elliptic.P256(), nil), nil, ""},
		"key transport only":  {certmanager.XSelfSigned(t, elliptic.P256(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), certmanager.ErrInvalid, "digital signature"},
		"signing, and others": {certmanager.XSelfSigned(t, elliptic.P256(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment }), nil, ""},
		"mail": {certmanager.XSelfSigned(t, elliptic.P256(), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection}
		}), certmanager.ErrInvalid, "extended key usage"},
		"curve": {certmanager.XSelfSigned(t, elliptic.P224(), nil), certmanager.ErrInvalid, "use P-256"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := certmanager.New(certmanager.Options{Source: recordKeys(certmanager.Static{Certificates: []tls.Certificate{c.cert}})})
			recorded.text(err)
			if c.is == nil {
				require.NoError(t, err)
				require.NoError(t, m.Close())
				return
			}
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "Static.Certificates[0]")
		})
	}
}
