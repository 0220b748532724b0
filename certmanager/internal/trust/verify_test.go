package trust

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

func noLists(t *testing.T) *Lists {
	t.Helper()
	lists, err := NewLists(nil, nil, false, time.Now(), nil)
	require.NoError(t, err)
	return lists
}

// A chain that is known needs its root alone, and is built anew where that is gone.
func TestVerifyKnownChain(t *testing.T) {
	root, other := tlstest.NewCA(t), tlstest.NewCA(t)
	intermediate := root.Intermediate(t)
	leaf := intermediate.Issue(t, tlstest.Leaf{}).Leaf
	now := time.Now()
	v := Verifier{Roots: root.Pool(), Usage: x509.ExtKeyUsageServerAuth, Lists: noLists(t), When: now, Now: now}
	alone, whole := []*x509.Certificate{leaf}, []*x509.Certificate{leaf, intermediate.Certificate()}

	_, err := v.Verify(alone, nil)
	require.ErrorIs(t, err, ErrUntrusted)
	chains, err := v.Verify(whole, nil)
	require.NoError(t, err)
	require.Equal(t, [][]*x509.Certificate{append(slices.Clone(whole), root.Certificate())}, chains)
	again, err := v.Verify(alone, chains)
	require.NoError(t, err)
	assert.Equal(t, chains, again)

	v.Roots = other.Pool()
	v.Known = []*x509.Certificate{other.Certificate()}
	none, err := v.Verify(alone, chains)
	require.ErrorIs(t, err, ErrUntrusted)
	assert.ErrorContains(t, err, "no CA is known with the name")
	assert.Empty(t, none)
	v.When = leaf.NotAfter.Add(time.Second)
	_, err = v.Verify(whole, chains)
	require.ErrorIs(t, err, ErrExpired)
}

// The chains that a list refuses come back beside the error.
func TestVerifyRevoked(t *testing.T) {
	root := tlstest.NewCA(t)
	leaf := root.Issue(t, tlstest.Leaf{}).Leaf
	now := time.Now()
	lists, err := NewLists([]*x509.RevocationList{parseCRL(t, root.CRL(t, leaf))}, []*x509.Certificate{root.Certificate()}, false, now, nil)
	require.NoError(t, err)
	v := Verifier{Roots: root.Pool(), Usage: x509.ExtKeyUsageServerAuth, Lists: lists, When: now, Now: now}
	chains, err := v.Verify([]*x509.Certificate{leaf}, nil)
	require.ErrorIs(t, err, ErrRevoked)
	require.Len(t, chains, 1)
	assert.Equal(t, leaf.NotAfter, End(chains))
}

func TestArrange(t *testing.T) {
	root, other := tlstest.NewCA(t), tlstest.NewCA(t)
	upper := root.Intermediate(t)
	lower := upper.Intermediate(t)
	leaf := lower.Issue(t, tlstest.Leaf{}).Leaf
	l, u, r, o := lower.Certificate(), upper.Certificate(), root.Certificate(), other.Certificate()
	for name, c := range map[string]struct {
		certs, chain []*x509.Certificate
		says         string // a warning, or an error
	}{
		"in order":       {[]*x509.Certificate{leaf, l, u}, []*x509.Certificate{leaf, l, u}, ""},
		"with the root":  {[]*x509.Certificate{leaf, l, u, r}, []*x509.Certificate{leaf, l, u, r}, ""},
		"reversed":       {[]*x509.Certificate{u, l, leaf}, []*x509.Certificate{leaf, l, u}, ""},
		"another CA":     {[]*x509.Certificate{leaf, l, o, u}, []*x509.Certificate{leaf, l, u}, "issued none of the others"},
		"without issuer": {[]*x509.Certificate{leaf, u}, nil, "is missing"},
		"alone":          {[]*x509.Certificate{leaf}, []*x509.Certificate{leaf}, ""},
	} {
		chain, warning, err := Arrange(leaf, c.certs, time.Now())
		assert.Equal(t, c.chain, chain, name)
		switch {
		case c.chain == nil:
			assert.ErrorContains(t, err, c.says, name)
		case c.says == "":
			assert.Empty(t, warning, name)
		default:
			assert.Contains(t, warning, c.says, name)
		}
	}
}
