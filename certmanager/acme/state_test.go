package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/tlstest"
)

const testDomain = "a.example.test"

// reports keeps what a source reports.
type reports struct {
	mu     sync.Mutex
	events []certmanager.Event
}

func (r *reports) of(kind certmanager.Kind) (some []certmanager.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Kind == kind {
			some = append(some, e)
		}
	}
	return some
}

// idle returns a source at work whose CA cannot be reached, with a name that only the test looks
// after.
func idle(t *testing.T, edits ...func(*Source)) (*state, *name, *reports) {
	t.Helper()
	source := &Source{
		HostPolicy: autocert.HostWhitelist(testDomain), Cache: autocert.DirCache(t.TempDir()),
		Directory: "https://127.0.0.1:1/", HandshakeTimeout: -1,
	}
	for _, edit := range edits {
		edit(source)
	}
	o, err := source.ready()
	require.NoError(t, err)
	s, r := newState(o), &reports{}
	s.ctx, s.changed = t.Context(), func() {}
	s.report = func(e certmanager.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}
	n := s.newName(testDomain, false)
	n.stop = func() {}
	s.names[n.text] = n
	t.Cleanup(s.cas[0].network.CloseIdleConnections)
	return s, n, r
}

// issue makes a certificate as a CA would issue it.
func issue(t *testing.T, ca *tlstest.CA, notBefore, notAfter time.Time) *tls.Certificate {
	t.Helper()
	cert := ca.Issue(t, tlstest.Leaf{Names: []string{testDomain}, NotBefore: notBefore, NotAfter: notAfter}).Certificate()
	return &cert
}

// The long waits of failures while there was time left are not those of a name without a
// certificate.
func TestBackOffBeginsAnewAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, _ := idle(t)
		cert := issue(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(30*time.Hour))
		s.adopt(n, cert)
		wait := func() time.Duration {
			s.postpone(n, errors.New("the CA is down"))
			return time.Until(s.status()[0].Next)
		}
		for range 8 {
			wait()
		}
		assert.Greater(t, wait(), time.Hour)
		time.Sleep(time.Until(cert.Leaf.NotAfter))
		s.expire()
		assert.Less(t, wait(), 2*time.Second)
		assert.Less(t, wait(), 4*time.Second)
		assert.Equal(t, 11, s.status()[0].Failures)
		for range 8 {
			wait()
		}
		assert.Greater(t, wait(), 50*time.Minute)
		s.postpone(n, errRecord)
		assert.LessOrEqual(t, time.Until(s.status()[0].Next), maxRecordRetry, "an operator writes the record, and waits")
	})
}

// watch runs watchClock until the end of the test.
func (s *state) watch(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { s.watchClock(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
}

// What ends is taken out of service a moment before, and that is reported once.
func TestExpiredIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, r := idle(t)
		s.watch(t)
		s.adopt(n, issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour)))
		time.Sleep(time.Hour - time.Second - time.Millisecond)
		synctest.Wait()
		assert.NotNil(t, s.serving(n))
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		assert.Nil(t, s.serving(n))
		time.Sleep(10 * time.Second)
		assert.Len(t, r.of(certmanager.Expired), 1)
	})
}

// What ends while the machine sleeps, or when the clock is set, is found when it has woken up.
func TestExpiredWhileTheMachineSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, _ := idle(t)
		s.watch(t)
		s.adopt(n, issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour)))
		time.Sleep(time.Minute)
		assert.NotNil(t, s.serving(n))
		clock.Step(time.Hour)
		defer clock.Step(-time.Hour)
		time.Sleep(clockEvery + time.Second)
		assert.Nil(t, s.serving(n))
	})
}

// A name for which an order has failed is ordered again when a handshake asks, and not before the
// time for it has come.
func TestFailedNameWaitsToBeAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32 // by renew, before each attempt
		s, n, _ := idle(t, func(a *Source) {
			a.HostPolicy = func(_ context.Context, host string) error {
				if host != testDomain {
					return errors.New("not here")
				}
				asked.Add(1)
				return nil
			}
			a.Cache = autocert.DirCache("/dev/null/folder") // so that each attempt fails
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.maintain(ctx, n); close(done) }()
		time.Sleep(time.Hour)
		assert.EqualValues(t, 1, asked.Load())
		s.want(t.Context(), testDomain)
		synctest.Wait()
		assert.EqualValues(t, 2, asked.Load())
		s.want(t.Context(), testDomain)
		synctest.Wait()
		assert.EqualValues(t, 2, asked.Load(), "it is not time")
		time.Sleep(time.Hour)
		assert.EqualValues(t, 3, asked.Load())
		time.Sleep(10 * time.Hour)
		assert.EqualValues(t, 3, asked.Load())
		cancel()
		<-done
	})
}

// A certificate that is not valid yet is kept, reported once, and served when it is.
func TestNotYetValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, r := idle(t)
		cert := issue(t, tlstest.NewCA(t), time.Now().Add(2*time.Hour), time.Now().Add(200*time.Hour))
		require.NoError(t, s.store(t.Context(), n, s.cas[0], cert))
		s.adopt(n, cert)
		s.adopt(n, cert) // found in the cache again
		assert.Nil(t, s.serving(n))
		assert.Len(t, r.of(certmanager.Warning), 1)
		assert.Equal(t, cert.Leaf.NotBefore.Unix(), s.status()[0].Next.Unix())
		n.fixed, n.asks = true, time.Now().Add(1000*time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.maintain(ctx, n); close(done) }()
		time.Sleep(2*time.Hour - time.Minute)
		assert.Nil(t, s.serving(n))
		time.Sleep(2 * time.Minute)
		assert.NotNil(t, s.serving(n))
		assert.Empty(t, r.of(certmanager.OrderFailed), "nothing was ordered")
		cancel()
		<-done
	})
}

// What New does not wait for is ordered when the program's own server, which has to answer the CA,
// has had time to listen.
func TestOrdersAtStartWaitForTheServer(t *testing.T) {
	for _, background := range []bool{false, true} {
		s, _, _ := idle(t, func(a *Source) { a.Domains, a.Background = []string{testDomain}, background })
		n, began := s.newName(testDomain, true), time.Now()
		s.names[testDomain] = n
		data, err := encodeCached(issue(t, tlstest.NewCA(t), began.Add(-80*time.Hour), began.Add(20*time.Hour)))
		require.NoError(t, err)
		require.NoError(t, s.put(t.Context(), s.cas[0].certKey(n), data))
		if background {
			s.o.Domains = append(s.o.Domains, "missing.example.test")
			s.names["missing.example.test"] = s.newName("missing.example.test", true)
		}
		ctx, cancel := context.WithCancel(t.Context())
		require.NoError(t, s.start(ctx))
		s.mu.Lock()
		for _, n := range s.names {
			assert.False(t, n.due.Before(began.Add(backgroundDelay)), n.text)
		}
		s.mu.Unlock()
		cancel()
		s.maintaining.Wait()
	}
}

// Whoever gets an event, such as the handler of the Manager's log, may ask for the status.
func TestEventsAreReportedWithoutTheLock(t *testing.T) {
	s, n, r := idle(t, func(a *Source) { a.RenewBefore = 1000 * time.Hour })
	report := s.report
	s.report = func(e certmanager.Event) {
		s.status()
		report(e)
	}
	s.adopt(n, issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour)))
	assert.Len(t, r.of(certmanager.Warning), 1)
	n.cert.Leaf.NotAfter = time.Now()
	s.expire()
	assert.Len(t, r.of(certmanager.Expired), 1)
}
