package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	xacme "github.com/mholt/acmez/v3/acme"
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

func (s *state) serves(n *name) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.cert != nil
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

// A policy that refuses a name which is served, for example since its database is away, does not
// take it out of service, and is asked again.
func TestPolicyThatFailsIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		s, n, r := idle(t, func(a *Source) {
			a.HostPolicy = func(_ context.Context, host string) error {
				if away.Load() || host != testDomain {
					return errors.New("the database is away")
				}
				return nil
			}
		})
		cert := issue(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		s.adopt(n, cert)
		away.Store(true)
		for range 3 {
			assert.False(t, s.stillWanted(t.Context(), n, true))
		}
		assert.True(t, s.serves(n))
		status := s.status()[0]
		assert.Contains(t, status.Error, "the database is away")
		assert.Less(t, time.Until(status.Next), 8*time.Minute, "a tenth of what is left")
		assert.Len(t, r.of(certmanager.Warning), 1)

		away.Store(false)
		assert.True(t, s.stillWanted(t.Context(), n, true))
		away.Store(true)
		time.Sleep(time.Until(cert.Leaf.NotAfter))
		s.expire()
		assert.False(t, s.stillWanted(t.Context(), n, false), "without a certificate the policy decides")
		assert.Empty(t, s.status())
		assert.Len(t, r.of(certmanager.Warning), 1)
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
		assert.True(t, s.serves(n))
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		assert.False(t, s.serves(n))
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
		assert.True(t, s.serves(n))
		clock.Step(time.Hour)
		defer clock.Step(-time.Hour)
		time.Sleep(clockEvery + time.Second)
		assert.False(t, s.serves(n))
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
		s.adopt(n, cert)
		s.adopt(n, cert) // found in the cache again
		assert.False(t, s.serves(n))
		assert.Len(t, r.of(certmanager.Warning), 1)
		assert.Equal(t, cert.Leaf.NotBefore.Unix(), s.status()[0].Next.Unix())
		n.fixed, n.asks = true, time.Now().Add(1000*time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.maintain(ctx, n); close(done) }()
		time.Sleep(2*time.Hour - time.Minute)
		assert.False(t, s.serves(n))
		time.Sleep(2 * time.Minute)
		assert.True(t, s.serves(n))
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

// What is about to be taken out of service is not put in service again from the cache.
func TestLastMomentIsNotTakenFromTheCache(t *testing.T) {
	s, n, _ := idle(t)
	for left, usable := range map[time.Duration]bool{time.Minute: true, 900 * time.Millisecond: false, -time.Minute: false} {
		data, err := encodeCached(issue(t, tlstest.NewCA(t), time.Now().Add(-24*time.Hour), time.Now().Add(left)))
		require.NoError(t, err)
		require.NoError(t, s.put(t.Context(), s.cas[0].certKey(n), data))
		assert.Equal(t, usable, s.load(t.Context(), n) != nil, "%v before its end", left)
	}
}

// What makes no sense is kept under another name, and out of the way.
func TestSetAside(t *testing.T) {
	s, n, _ := idle(t)
	c := s.cas[0]
	require.NoError(t, s.put(t.Context(), c.certKey(n), []byte("nonsense")))
	require.NoError(t, s.put(t.Context(), c.accountKey(), []byte("nonsense too")))
	assert.Nil(t, s.load(t.Context(), n))
	key, err := s.accountKey(t.Context(), c)
	require.NoError(t, err)
	_, err = s.get(t.Context(), c.certKey(n))
	assert.ErrorIs(t, err, autocert.ErrCacheMiss)
	for name, want := range map[string]string{c.certKey(n): "nonsense", c.accountKey(): "nonsense too"} {
		kept, err := s.get(t.Context(), name+"+unreadable")
		require.NoError(t, err)
		assert.Equal(t, want, string(kept))
	}
	again, err := s.accountKey(t.Context(), c)
	require.NoError(t, err)
	assert.Equal(t, key, again)
}

// cacheWithout is a Cache that is away as long as away says so.
type cacheWithout struct {
	autocert.Cache
	away *atomic.Bool
}

func (c cacheWithout) Get(ctx context.Context, key string) ([]byte, error) {
	if c.away.Load() {
		return nil, errors.New("the cache is away")
	}
	return c.Cache.Get(ctx, key)
}

// A shared cache is read all the time: when it is away that is reported once, and no other account
// is made.
func TestUnreadableCacheIsReportedOnce(t *testing.T) {
	var away atomic.Bool
	s, n, r := idle(t, func(a *Source) { a.Cache = cacheWithout{a.Cache, &away} })
	for range 2 {
		away.Store(true)
		for range 3 {
			assert.False(t, s.loadNewer(t.Context(), n, nil))
		}
		_, err := s.accountKey(t.Context(), s.cas[0])
		require.ErrorContains(t, err, "the cache is away")
		away.Store(false)
		assert.False(t, s.loadNewer(t.Context(), n, nil))
	}
	assert.Len(t, r.of(certmanager.CacheFailed), 2)
}

// The CA says when it is to be asked again, within bounds.
func TestRenewalInfoIsAskedAgain(t *testing.T) {
	var after string
	window := map[string]time.Time{"start": time.Now().Add(time.Hour), "end": time.Now().Add(2 * time.Hour)}
	ca := httptest.NewTLSServer(nil)
	defer ca.Close()
	mux := http.NewServeMux()
	ca.Config.Handler = mux
	mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"newNonce": "`+ca.URL+`/nonce", "newOrder": "`+ca.URL+`/order", "renewalInfo": "`+ca.URL+`/ari"}`)
	})
	mux.HandleFunc("/ari/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", after)
		json.NewEncoder(w).Encode(map[string]any{"suggestedWindow": window})
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	s, n, _ := idle(t, func(a *Source) { a.Directory, a.Roots = ca.URL+"/dir", roots })
	cert := issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(3*time.Hour))
	s.adopt(n, cert)
	asked := func() time.Duration {
		s.askRenewalInfo(t.Context(), n, cert.Leaf)
		return time.Until(n.asks)
	}
	id, err := xacme.ARIUniqueIdentifier(cert.Leaf)
	require.NoError(t, err)
	for value, want := range map[string]time.Duration{
		"7200": 2 * time.Hour, "": 6 * time.Hour, "nonsense": 6 * time.Hour, "1000000": 24 * time.Hour, "1": time.Second,
		time.Now().Add(3 * time.Hour).UTC().Format(http.TimeFormat): 3 * time.Hour,
	} {
		after = value
		assert.InDelta(t, want.Seconds(), asked().Seconds(), 30, value)
		assert.Equal(t, id, n.info.UniqueIdentifier)
	}
	due := s.status()[0].Next
	assert.WithinRange(t, due, window["start"], window["end"])
	window["end"] = window["start"].Add(-time.Second)
	assert.InDelta(t, 6*time.Minute.Seconds(), asked().Seconds(), 30, "a thirtieth of the lifetime after nonsense")
	assert.Equal(t, due, s.status()[0].Next, "which changes nothing")
}

// The names of clients share a number of orders; Domains do not need it.
func TestOrdersPerHour(t *testing.T) {
	s, n, r := idle(t, func(a *Source) { a.OrdersPerHour = 2 })
	var errs []error
	for range 5 {
		errs = append(errs, s.obtain(t.Context(), n, nil))
	}
	assert.NotErrorIs(t, errs[1], errLimit)
	assert.ErrorIs(t, errs[2], errLimit)
	n.fixed = true
	assert.NotErrorIs(t, s.obtain(t.Context(), n, nil), errLimit)
	assert.Empty(t, r.of(certmanager.Issued))
}

// What a CA sends is bounded, and a Retry-After ends the repetitions of a request.
func TestTransport(t *testing.T) {
	requests := 0
	ca := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if r.URL.Path == "/endless" {
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<16))
			}
			return
		}
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"detail": "busy"}`)
	}))
	defer ca.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &transport{Transport: base}}
	get := func(ctx context.Context, path string) ([]byte, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, ca.URL+path, nil)
		require.NoError(t, err)
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		return io.ReadAll(response.Body)
	}
	body, err := get(t.Context(), "/endless")
	require.Error(t, err)
	assert.LessOrEqual(t, len(body), maxAnswer)
	requests = 0
	_, err = call(t.Context(), "order", func(ctx context.Context) (_ []byte, err error) {
		for range 3 {
			_, err = get(ctx, "/")
		}
		return nil, err
	})
	require.EqualError(t, err, "order: 503 Service Unavailable: busy (Retry-After: 7s)")
	assert.Equal(t, 7*time.Second, retryAfterOf(err))
	assert.Equal(t, 1, requests)
}

// A CA whose directory has another field each time, as that of Let's Encrypt, has the same client.
func TestDirectoryWithARandomField(t *testing.T) {
	ca := httptest.NewTLSServer(nil)
	defer ca.Close()
	random := 0
	ca.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		random++
		fmt.Fprintf(w, `{"newOrder": "%s/order", "renewalInfo": "%s/ari", "x%d": "https://example.com/"}`, ca.URL, ca.URL, random)
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	s, _, _ := idle(t, func(a *Source) { a.Directory, a.Roots = ca.URL, roots })
	first, err := s.cas[0].connect(t.Context(), false)
	require.NoError(t, err)
	s.cas[0].readAt = time.Time{}
	second, err := s.cas[0].connect(t.Context(), false)
	require.NoError(t, err)
	assert.Equal(t, 2, random)
	assert.Equal(t, first.Client.Directory, second.Client.Directory, "acmez keeps one copy")
}

// A policy whose database hangs does not hold New up.
func TestPolicyThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := (&Source{Cache: autocert.DirCache(t.TempDir()), HostPolicy: func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}}).ready()
		require.NoError(t, err)
		assert.Equal(t, policyTimeout, time.Since(began))
	})
}

// While the cache cannot be written to nothing is ordered but what is about to end in service.
func TestOrdersWaitForTheStorage(t *testing.T) {
	s, n, _ := idle(t, func(a *Source) { a.Cache = autocert.DirCache("/dev/null/folder") })
	require.ErrorContains(t, s.obtain(t.Context(), n, nil), "nothing is ordered that cannot be stored")
	for left, ordered := range map[time.Duration]bool{20 * time.Hour: false, time.Hour: true} {
		cert := issue(t, tlstest.NewCA(t), time.Now().Add(-80*time.Hour), time.Now().Add(left))
		err := s.obtain(t.Context(), n, cert)
		require.Error(t, err)
		assert.Equal(t, ordered, !strings.Contains(err.Error(), "nothing is ordered"), "%v: %v", left, err)
	}
	s.storageOK.Store(true)
	n.unsaved = issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour))
	s.save(t.Context(), n)
	require.ErrorContains(t, s.obtain(t.Context(), n, nil), "nothing is ordered", "after what could not be stored")
}

// Many names that are loaded at once do not ask for renewal information at once.
func TestRenewalInfoIsSpread(t *testing.T) {
	s, n, _ := idle(t, func(a *Source) {
		for i := range 1000 {
			a.Domains = append(a.Domains, fmt.Sprintf("n%d.example.test", i))
		}
	})
	cert, latest := issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour)), time.Duration(0)
	for range 100 {
		s.adopt(n, cert)
		latest = max(latest, time.Until(n.asks))
	}
	assert.Greater(t, latest, 20*time.Second)
	assert.Less(t, latest, 102*time.Second)
}
