package certmanager_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// One file may hold the CAs and their lists.
func TestListsBesideCAs(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	bad := ca.Issue(t, tlstest.Leaf{})
	both := write(t, dir, "both.pem", append(ca.PEM(), ca.CRL(t)...))
	files := certmanager.Files{ClientCAs: both, CRLs: both}
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
	for size, says := range map[int64]string{128 << 20: "it is neither PEM nor DER", 128<<20 + 1: "it is larger than 134217728 bytes"} {
		require.NoError(t, os.Truncate(path, size))
		_, err := certmanager.New(certmanager.Options{Source: certmanager.Files{CRLs: path}})
		require.ErrorIs(t, err, certmanager.ErrInvalid)
		require.ErrorContains(t, err, filepath.Base(path))
		assert.ErrorContains(t, err, says)
	}
}
