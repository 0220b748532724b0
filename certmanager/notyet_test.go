package certmanager_test

import (
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A CA may issue a certificate whose intermediate is not valid yet by the clock here. It is put in
// service when it is, although the source does not change again.
func TestIntermediateNotYetValid(t *testing.T) {
	for name, again := range map[string]bool{"the same Material": false, "an equal one": true} {
		synctest.Test(t, func(t *testing.T) {
			ca := tlstest.NewCA(t)
			soon := ca.Intermediate(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Second) })
			before, after := ca.Issue(t, tlstest.Leaf{}), soon.Issue(t, tlstest.Leaf{})
			materialOf := func(pair *tlstest.Pair) *certmanager.Material {
				return &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: pair.Certificate(), Origin: "test"}}}
			}
			source := &pushed{material: materialOf(before)}
			m := newManager(t, certmanager.Options{Source: source})
			events := collect(m)
			source.put(materialOf(after))
			for range 50 {
				time.Sleep(time.Second)
				if again {
					source.put(materialOf(after))
				}
			}
			synctest.Wait()
			assert.True(t, after.Leaf.Equal(m.GetCertificate().Leaf), name)
			require.Len(t, events(certmanager.Rejected), 1, name)
			assert.ErrorIs(t, events(certmanager.Rejected)[0].Err, certmanager.ErrNotYetValid)
			assert.False(t, m.Status().Drift)
		})
	}
}
