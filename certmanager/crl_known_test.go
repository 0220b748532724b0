package certmanager

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// A list that is known counts no more when its issuer is gone, and again when it is back.
func TestKnownListOfAnIssuerThatIsGone(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	lists := []*x509.RevocationList{parseCRL(t, ca.CRL(t))}
	var r *revocations
	for _, has := range []bool{true, false, true} {
		issuers := []*x509.Certificate{other.Certificate()}
		if has {
			issuers = append(issuers, ca.Certificate())
		}
		var err error
		r, err = newRevocations(lists, issuers, false, time.Now(), r)
		require.NoError(t, err)
		assert.Equal(t, has, len(r.all()) == 1)
		assert.Equal(t, has, len(r.warnings) == 0)
	}
}

// A list that was dated in the future is one of today when it is looked at again then.
func TestKnownListOfTheFuture(t *testing.T) {
	ca := tlstest.NewCA(t)
	data, err := ca.GenerateCRL(tlstest.CRL{ThisUpdate: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	lists, issuers := []*x509.RevocationList{parseCRL(t, data)}, []*x509.Certificate{ca.Certificate()}
	r, err := newRevocations(lists, issuers, false, time.Now(), nil)
	require.NoError(t, err)
	assert.True(t, r.all()[0].scope.future)
	assert.Len(t, r.warnings, 1)
	later, err := newRevocations(lists, issuers, false, time.Now().Add(time.Hour), r)
	require.NoError(t, err)
	assert.False(t, later.all()[0].scope.future)
	assert.True(t, r.all()[0].scope.future, "what is in service is not modified")
	assert.Empty(t, later.warnings)
}

// One file may hold the CAs and their lists.
func TestListsBesideCAs(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	bad := ca.Issue(t, tlstest.Leaf{})
	both := write(t, dir, "both.pem", append(ca.PEM(), ca.CRL(t)...))
	files := Files{ClientCAs: both, CRLs: both}
	first, err := files.Load(context.Background(), nil)
	require.NoError(t, err)
	same, err := files.Load(context.Background(), first)
	require.NoError(t, err)
	assert.Same(t, first, same)
	write(t, dir, "both.pem", append(ca.PEM(), ca.CRL(t, bad.Leaf)...))
	next, err := files.Load(context.Background(), first)
	require.NoError(t, err)
	require.Len(t, next.CRLs, 1)
	assert.Len(t, next.CRLs[0].RevokedCertificateEntries, 1)
	assert.Len(t, next.ClientCAs, 1)
}

// The bound is told with the file.
func TestListTooLarge(t *testing.T) {
	path := write(t, t.TempDir(), "huge.crl", nil)
	for size, says := range map[int64]string{maxCRLSize: "it is neither PEM nor DER", maxCRLSize + 1: "it is larger than 134217728 bytes"} {
		require.NoError(t, os.Truncate(path, size))
		_, err := New(Options{Source: Files{CRLs: path}})
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, filepath.Base(path))
		assert.ErrorContains(t, err, says)
	}
}
