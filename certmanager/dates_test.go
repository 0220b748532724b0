package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// RFC 5280 section 4.1.2.5: the year 9999 is that of what has no end. Nothing may be added to the
// time until then.
var (
	never  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	always = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)
)

// forever makes a CA whose certificate always holds, and a leaf and a list of it.
func forever(t *testing.T) (ca *tlstest.CA, leaf tlstest.Leaf, list *x509.RevocationList) {
	t.Helper()
	ca = tlstest.NewCA(t, func(template *x509.Certificate) { template.NotBefore, template.NotAfter = always, never })
	der, err := ca.GenerateCRL(tlstest.CRL{ThisUpdate: always, NextUpdate: never})
	require.NoError(t, err)
	return ca, tlstest.Leaf{NotBefore: always, NotAfter: never}, parseCRL(t, der)
}

// In the bubble of a test the clock stands still while a goroutine runs: a timer that fires again
// and again without an end would keep this test for ever.
func TestWithoutExpirationDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, leaf, list := forever(t)
		inner := ca.Intermediate(t, func(template *x509.Certificate) { template.NotBefore, template.NotAfter = always, never })
		m := newManager(t, certmanager.Options{
			PollInterval: 1000 * time.Hour, RequireFreshCRLs: true,
			Source: certmanager.Static{
				Certificates: []tls.Certificate{inner.Issue(t, leaf).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
				CRLs: []*x509.RevocationList{list}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
			},
		})
		events := collect(m)
		c := connectPipe(m.ServerTLS(), m.ClientTLS("localhost"))
		require.NoError(t, c.serverErr)
		require.NoError(t, c.clientErr)
		client, server := track(m, c.server), track(m, c.client)
		time.Sleep(50 * 365 * 24 * time.Hour)
		synctest.Wait()
		client.open(t, "it has not ended")
		server.open(t, "nor has its server")
		for _, kind := range []certmanager.Kind{certmanager.Expiring, certmanager.Expired, certmanager.CRLOutOfDate} {
			assert.Empty(t, events(kind), kind)
		}
		c = connectPipe(m.ServerTLS(), m.ClientTLS("localhost"))
		require.NoError(t, c.serverErr)
		status := m.Status()
		assert.True(t, never.Equal(status.Certificates[0].NotAfter))
		assert.False(t, status.CRLs[0].OutOfDate)
		m.Recycle(status.Generation+1, 1<<63-1) // as long as a Duration can be
		synctest.Wait()
		client.open(t, "there is time")
		client.release()
		server.release()
	})
}

// What always was, and has ended, is told once, at its last second, however long it was valid.
func TestWithoutABeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, leaf, _ := forever(t)
		leaf.NotAfter = time.Now().Add(100 * 24 * time.Hour)
		m := newManager(t, certmanager.Options{PollInterval: 1000 * time.Hour, Source: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, leaf).Certificate()},
		}})
		events := collect(m)
		time.Sleep(time.Until(leaf.NotAfter))
		synctest.Wait()
		assert.Len(t, events(certmanager.Expiring), 4)
		assert.Empty(t, events(certmanager.Expired), "its last second has just begun")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, events(certmanager.Expired), 1)
		assert.ErrorIs(t, events(certmanager.Expired)[0].Err, certmanager.ErrExpired)
	})
}

// What ended in the year 1, or begins in 9999, is refused, and does not keep the loop busy.
func TestDatesOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, _, _ := forever(t)
		source := &edited{material: certmanager.Material{Certificates: []certmanager.Certificate{{Certificate: ca.Issue(t, tlstest.Leaf{NotAfter: never}).Certificate()}}}}
		m := newManager(t, certmanager.Options{Source: source})
		for name, leaf := range map[string]tlstest.Leaf{
			"ended":  {NotBefore: always, NotAfter: always.Add(time.Hour)},
			"begins": {NotBefore: never.Add(-time.Hour), NotAfter: never},
		} {
			before := m.Status().Rejections
			source.set(func(m *certmanager.Material) {
				m.Certificates = []certmanager.Certificate{{Certificate: ca.Issue(t, leaf).Certificate(), Origin: name}}
			})
			time.Sleep(time.Hour)
			assert.Equal(t, before+1, m.Status().Rejections, name)
		}
		der, err := ca.GenerateCRL(tlstest.CRL{ThisUpdate: always, NextUpdate: always.Add(time.Hour)})
		require.NoError(t, err)
		events := collect(m)
		source.set(func(material *certmanager.Material) {
			material.Certificates = []certmanager.Certificate{{Certificate: ca.Issue(t, tlstest.Leaf{NotAfter: never}).Certificate()}}
			material.CRLs, material.CRLIssuers = []*x509.RevocationList{parseCRL(t, der)}, []*x509.Certificate{ca.Certificate()}
		})
		time.Sleep(time.Hour)
		assert.Len(t, events(certmanager.CRLOutOfDate), 1)
		assert.Equal(t, uint64(2), m.Status().Generation)
	})
}
