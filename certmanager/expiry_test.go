package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// told collects the kinds of events with the time at which they came, in whole units.
type told struct {
	mu    sync.Mutex
	start time.Time
	unit  time.Duration
	times map[certmanager.Kind][]int
}

func listen(m *certmanager.Manager, unit time.Duration) *told {
	l := &told{start: time.Now(), unit: unit, times: make(map[certmanager.Kind][]int)}
	m.Subscribe(func(e certmanager.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.times[e.Kind] = append(l.times[e.Kind], int(e.Time.Sub(l.start).Round(unit)/unit))
	})
	return l
}

func (l *told) at(kind certmanager.Kind) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.times[kind]
}

func TestExpiryIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		const day = 24
		pair := ca.Issue(t, tlstest.Leaf{NotBefore: time.Now(), NotAfter: time.Now().Add(100 * day * time.Hour)})
		list, err := ca.GenerateCRL(tlstest.CRL{NextUpdate: time.Now().Add(40 * day * time.Hour)})
		require.NoError(t, err)
		m := newManager(t, certmanager.Options{PollInterval: day * time.Hour, Source: certmanager.Static{
			Certificates: []tls.Certificate{pair.Certificate()}, CRLs: []*x509.RevocationList{parseCRL(t, list)}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
		}})
		events := listen(m, time.Hour)
		time.Sleep(87 * day * time.Hour)
		synctest.Wait()
		assert.Equal(t, []int{70 * day, 86 * day}, events.at(certmanager.Expiring))
		assert.Equal(t, []int{40 * day}, events.at(certmanager.CRLOutOfDate))
		m.SetServerName("x") // the next snapshot has the same certificate: nothing is told again
		time.Sleep(20 * day * time.Hour)
		synctest.Wait()
		assert.Equal(t, []int{70 * day, 86 * day, 93 * day, 99 * day}, events.at(certmanager.Expiring))
		assert.Equal(t, []int{100 * day}, events.at(certmanager.Expired))
		assert.Equal(t, []int{40 * day}, events.at(certmanager.CRLOutOfDate))
	})
}

// A certificate that is taken when its end is near is told once, not four times.
func TestExpiryIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
		events := listen(m, time.Hour)
		m.Update(ca.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(-90 * 24 * time.Hour), NotAfter: time.Now().Add(3 * 24 * time.Hour)}).Certificate())
		synctest.Wait()
		assert.Equal(t, []int{0}, events.at(certmanager.Expiring))
	})
}

// Nor is one that is in service in several places told once for each: a CA in both bundles, a
// certificate in two files.
func TestExpiryIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		until := time.Now().Add(40 * 24 * time.Hour)
		root := ca.Intermediate(t, func(template *x509.Certificate) { template.NotBefore, template.NotAfter = time.Now(), until }).Certificate()
		cert := ca.Issue(t, tlstest.Leaf{NotBefore: time.Now(), NotAfter: until}).Certificate()
		m := newManager(t, certmanager.Options{PollInterval: 24 * time.Hour, Source: &edited{material: certmanager.Material{
			Certificates: []certmanager.Certificate{{Certificate: cert, Origin: "one"}, {Certificate: cert, Origin: "two"}},
			ClientCAs:    []*x509.Certificate{root}, RootCAs: []*x509.Certificate{root},
		}}})
		events := collect(m)
		time.Sleep(time.Until(until) + time.Second)
		synctest.Wait()
		assert.Len(t, events(certmanager.Expiring), 8, "four for each")
		assert.Len(t, events(certmanager.Expired), 2)
	})
}

// A certificate of an hour is announced in shares of it.
func TestExpiryOfAShortLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}))})
		events := listen(m, time.Minute/2)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.Equal(t, []int{2 * 40, 2 * 50, 2 * 55, 2*57 + 1}, events.at(certmanager.Expiring))
		assert.Equal(t, []int{2 * 60}, events.at(certmanager.Expired))
	})
}

// A chain ends with the first of its certificates. An issuer that outlives the leaf is the CA's
// business.
func TestExpiryOfIssuersIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := tlstest.NewCA(t)
		const hours = time.Hour
		short := root.Intermediate(t, func(template *x509.Certificate) {
			template.NotBefore, template.NotAfter = time.Now(), time.Now().Add(240*hours)
		})
		long := root.Intermediate(t, func(template *x509.Certificate) {
			template.NotBefore, template.NotAfter = time.Now(), time.Now().Add(960*hours)
		})
		leaf := tlstest.Leaf{NotBefore: time.Now(), NotAfter: time.Now().Add(480 * hours)}
		m := newManager(t, certmanager.Options{PollInterval: 24 * hours, Source: certmanager.Static{Certificates: []tls.Certificate{
			short.Issue(t, leaf).Certificate(), short.Issue(t, leaf).Certificate(), long.Issue(t, leaf).Certificate(),
		}}})
		events := collect(m)
		time.Sleep(241 * hours)
		synctest.Wait()
		ended := events(certmanager.Expired)
		require.Len(t, ended, 1, "for all that have this issuer")
		assert.Equal(t, short.Certificate().Subject.String(), ended[0].Certificate.Subject)
		assert.ErrorIs(t, ended[0].Err, certmanager.ErrExpired)
		assert.Len(t, events(certmanager.Expiring), 4)
		time.Sleep(1000 * hours)
		synctest.Wait()
		assert.Len(t, events(certmanager.Expired), 4, "and the three leaves")
	})
}
