package trust

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

func parseCRL(t *testing.T, data []byte) *x509.RevocationList {
	t.Helper()
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	list, err := x509.ParseRevocationList(block.Bytes)
	require.NoError(t, err)
	return list
}

// A list that is known counts no more when its issuer is gone, and again when it is back.
func TestKnownListOfAnIssuerThatIsGone(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	lists := []*x509.RevocationList{parseCRL(t, ca.CRL(t))}
	var r *Lists
	for _, has := range []bool{true, false, true} {
		issuers := []*x509.Certificate{other.Certificate()}
		if has {
			issuers = append(issuers, ca.Certificate())
		}
		var err error
		r, err = NewLists(lists, issuers, false, time.Now(), r)
		require.NoError(t, err)
		assert.Equal(t, has, len(r.All()) == 1)
		assert.Equal(t, has, len(r.Warnings) == 0)
	}
}

// A list that was dated in the future is one of today when it is looked at again then.
func TestKnownListOfTheFuture(t *testing.T) {
	ca := tlstest.NewCA(t)
	data, err := ca.GenerateCRL(tlstest.CRL{ThisUpdate: time.Now().Add(time.Hour)})
	require.NoError(t, err)
	lists, issuers := []*x509.RevocationList{parseCRL(t, data)}, []*x509.Certificate{ca.Certificate()}
	r, err := NewLists(lists, issuers, false, time.Now(), nil)
	require.NoError(t, err)
	assert.True(t, r.All()[0].scope.future)
	assert.Len(t, r.Warnings, 1)
	later, err := NewLists(lists, issuers, false, time.Now().Add(time.Hour), r)
	require.NoError(t, err)
	assert.False(t, later.All()[0].scope.future)
	assert.True(t, r.All()[0].scope.future, "what is in service is not modified")
	assert.Empty(t, later.Warnings)
}
