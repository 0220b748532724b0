package tlstest_test

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

func parseCRL(t *testing.T, text []byte) *x509.RevocationList {
	t.Helper()
	block, rest := pem.Decode(text)
	require.NotNil(t, block)
	assert.Equal(t, "X509 CRL", block.Type)
	assert.Empty(t, rest)
	list, err := x509.ParseRevocationList(block.Bytes)
	require.NoError(t, err)
	return list
}

func TestCRL(t *testing.T) {
	root := tlstest.NewCA(t)
	sub := root.Intermediate(t)
	for _, ca := range []*tlstest.CA{root, sub} {
		a, b := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
		list := parseCRL(t, ca.CRL(t, a.Leaf, b.Leaf))
		require.NoError(t, list.CheckSignatureFrom(ca.Certificate()))
		require.Len(t, list.RevokedCertificateEntries, 2)
		assert.Equal(t, b.Leaf.SerialNumber, list.RevokedCertificateEntries[1].SerialNumber)
		assert.True(t, list.ThisUpdate.Before(time.Now()))
		assert.True(t, list.NextUpdate.After(time.Now()))
		assert.Empty(t, parseCRL(t, ca.CRL(t)).RevokedCertificateEntries)
	}

	_, err := root.GenerateCRL(tlstest.CRL{Revoked: []*x509.Certificate{sub.Issue(t, tlstest.Leaf{}).Leaf}})
	require.ErrorContains(t, err, "was issued by")
}

func TestCRLNumberAndDates(t *testing.T) {
	ca := tlstest.NewCA(t)
	this, next := time.Now().Add(-48*time.Hour).UTC().Truncate(time.Second), time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	for _, step := range []struct{ give, want int64 }{{0, 1}, {0, 2}, {10, 10}, {3, 3}, {0, 11}} {
		text, err := ca.GenerateCRL(tlstest.CRL{Number: step.give, ThisUpdate: this, NextUpdate: next})
		require.NoError(t, err)
		list := parseCRL(t, text)
		assert.Equal(t, step.want, list.Number.Int64())
		assert.Equal(t, this, list.ThisUpdate)
		assert.Equal(t, next, list.NextUpdate)
	}
	_, err := ca.GenerateCRL(tlstest.CRL{ThisUpdate: next, NextUpdate: this})
	require.ErrorContains(t, err, "tlstest: CRL of")
}
