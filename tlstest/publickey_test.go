package tlstest_test

import (
	"crypto/ed25519"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

// A certificate may be for a key that is kept elsewhere.
func TestLeafOfAPublicKey(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{PublicKey: public})
	assert.Nil(t, pair.Key)
	assert.Empty(t, pair.KeyPEM)
	cert := pair.Certificate()
	require.Nil(t, cert.PrivateKey)
	cert.PrivateKey = private
	assert.True(t, public.Equal(pair.Leaf.PublicKey))
	_, err = ca.Generate(tlstest.Leaf{PublicKey: "no key"})
	require.Error(t, err)
}
