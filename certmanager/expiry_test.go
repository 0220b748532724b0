package certmanager

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

func TestWarnings(t *testing.T) {
	const day = 24 * time.Hour
	for lifetime, want := range map[time.Duration][]time.Duration{
		3650 * day:       {30 * day, 14 * day, 7 * day, day},
		398 * day:        {30 * day, 14 * day, 7 * day, day},
		90 * day:         {30 * day, 14 * day, 7 * day, day},
		60 * day:         {20 * day, 10 * day, 5 * day, day},
		6 * day:          {2 * day, day, 12 * time.Hour, 6 * time.Hour},
		time.Hour:        {20 * time.Minute, 10 * time.Minute, 5 * time.Minute, 150 * time.Second},
		24 * time.Second: {8 * time.Second, 4 * time.Second, 2 * time.Second, time.Second},
	} {
		end := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
		for i, when := range warnings(end.Add(-lifetime), end) {
			assert.Equal(t, want[i], end.Sub(when), lifetime)
		}
	}
}

// told collects the kinds of events with the time at which they came, in whole units.
type told struct {
	mu    sync.Mutex
	start time.Time
	unit  time.Duration
	times map[Kind][]int
}

func listen(m *Manager, unit time.Duration) *told {
	l := &told{start: time.Now(), unit: unit, times: make(map[Kind][]int)}
	m.Subscribe(func(e Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.times[e.Kind] = append(l.times[e.Kind], int(e.Time.Sub(l.start).Round(unit)/unit))
	})
	return l
}

func (l *told) at(kind Kind) []int {
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
		m := newManager(t, Options{PollInterval: day * time.Hour, Source: Static{
			Certificates: []tls.Certificate{pair.Certificate()}, CRLs: []*x509.RevocationList{parseCRL(t, list)}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
		}})
		events := listen(m, time.Hour)
		time.Sleep(87 * day * time.Hour)
		synctest.Wait()
		assert.Equal(t, []int{70 * day, 86 * day}, events.at(Expiring))
		assert.Equal(t, []int{40 * day}, events.at(CRLOutOfDate))
		m.SetServerName("x") // the next snapshot has the same certificate: nothing is told again
		time.Sleep(20 * day * time.Hour)
		synctest.Wait()
		assert.Equal(t, []int{70 * day, 86 * day, 93 * day, 99 * day}, events.at(Expiring))
		assert.Equal(t, []int{100 * day}, events.at(Expired))
		assert.Equal(t, []int{40 * day}, events.at(CRLOutOfDate))
	})
}

// A certificate that is taken when its end is near is told once, not four times.
func TestExpiryIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
		events := listen(m, time.Hour)
		m.Update(ca.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(-90 * 24 * time.Hour), NotAfter: time.Now().Add(3 * 24 * time.Hour)}).Certificate())
		synctest.Wait()
		assert.Equal(t, []int{0}, events.at(Expiring))
	})
}

// A certificate of an hour is announced in shares of it.
func TestExpiryOfAShortLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, Options{Source: leaf(ca.Issue(t, tlstest.Leaf{NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}))})
		events := listen(m, time.Minute/2)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		assert.Equal(t, []int{2 * 40, 2 * 50, 2 * 55, 2*57 + 1}, events.at(Expiring))
		assert.Equal(t, []int{2 * 60}, events.at(Expired))
	})
}

// A chain ends with the first of its certificates. An issuer that outlives the leaf is the CA's business.
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
		m := newManager(t, Options{PollInterval: 24 * hours, Source: Static{Certificates: []tls.Certificate{
			short.Issue(t, leaf).Certificate(), short.Issue(t, leaf).Certificate(), long.Issue(t, leaf).Certificate(),
		}}})
		events := collect(m)
		time.Sleep(241 * hours)
		synctest.Wait()
		ended := events(Expired)
		require.Len(t, ended, 1, "for all that have this issuer")
		assert.Equal(t, short.Certificate().Subject.String(), ended[0].Certificate.Subject)
		assert.ErrorIs(t, ended[0].Err, ErrExpired)
		assert.Len(t, events(Expiring), 4)
		time.Sleep(1000 * hours)
		synctest.Wait()
		assert.Len(t, events(Expired), 4, "and the three leaves")
	})
}
