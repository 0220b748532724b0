package certmanager_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A CA is replaced in one source, and before the removal of the old one counts another source
// becomes unusable. The old CA goes all the same.
func TestRemovalDespiteAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after := tlstest.NewCA(t), tlstest.NewCA(t)
		cas := func(all ...*tlstest.CA) *certmanager.Material {
			m := &certmanager.Material{}
			for _, ca := range all {
				m.ClientCAs = append(m.ClientCAs, ca.Certificate())
			}
			return m
		}
		certificate := func(l tlstest.Leaf) *certmanager.Material {
			return &certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: before.Issue(t, l).Certificate(), Origin: "test"}}}
		}
		bundle, pair := &pushed{material: cas(before)}, &pushed{material: certificate(tlstest.Leaf{})}
		m := newManager(t, certmanager.Options{Source: certmanager.Sources{bundle, pair}})
		synctest.Wait() // the sources are watched
		trusts := func(want ...*tlstest.CA) {
			t.Helper()
			var all []string
			for _, ca := range m.Status().ClientCAs {
				all = append(all, ca.Serial)
			}
			var wanted []string
			for _, ca := range want {
				wanted = append(wanted, certmanager.NewCertificateInfo(ca.Certificate(), "").Serial)
			}
			assert.ElementsMatch(t, wanted, all)
		}
		bundle.put(cas(after))
		time.Sleep(time.Second)
		trusts(before, after)
		pair.put(certificate(tlstest.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}))
		time.Sleep(time.Minute)
		trusts(after)
		assert.True(t, m.Status().Drift)
	})
}

// A bundle that is written in two steps loses no CA in between, whatever another source has.
func TestTwoStepsDespiteAnotherSource(t *testing.T) {
	for name, fault := range map[string]func(*certmanager.Certificate, *tlstest.Pair){
		"expired": func(c *certmanager.Certificate, expired *tlstest.Pair) { c.Certificate = expired.Certificate() },
		"another key": func(c *certmanager.Certificate, expired *tlstest.Pair) {
			c.Certificate.PrivateKey = expired.Certificate().PrivateKey
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			one, two := tlstest.NewCA(t), tlstest.NewCA(t)
			cas := func(all ...*tlstest.CA) *certmanager.Material {
				m := &certmanager.Material{}
				for _, ca := range all {
					m.ClientCAs = append(m.ClientCAs, ca.Certificate())
				}
				return m
			}
			good := certmanager.Certificate{Certificate: one.Issue(t, tlstest.Leaf{}).Certificate(), Origin: "test"}
			bundle, pair := &pushed{material: cas(one)}, &pushed{material: &certmanager.Material{Certificates: []certmanager.Certificate{good}}}
			m := newManager(t, certmanager.Options{Source: certmanager.Sources{bundle, pair}})
			synctest.Wait() // the sources are watched
			bad := good
			fault(&bad, one.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}))
			pair.put(&certmanager.Material{Certificates: []certmanager.Certificate{bad}})
			time.Sleep(time.Minute)
			assert.True(t, m.Status().Drift, name)
			peer := track(m, connectPipe(m.ServerTLS(), one.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server)
			defer peer.release()
			bundle.put(cas(two))
			time.Sleep(time.Second)
			bundle.put(cas(one, two))
			time.Sleep(time.Minute)
			peer.open(t, name)
			assert.Len(t, m.Status().ClientCAs, 2, name)
		})
	}
}
