package certmanager

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/tlstest"
)

const acmeTestName = "a.example.test"

// idleACME returns a manager with an ACME source whose CA cannot be reached, and a name of it
// that only the test looks after.
func idleACME(t *testing.T, wrap func(*ACME) Source) (*Manager, *acmeState, *acmeName) {
	t.Helper()
	source := &ACME{
		HostPolicy: autocert.HostWhitelist(acmeTestName), Cache: autocert.DirCache(t.TempDir()),
		Directory: "https://127.0.0.1:1/", HandshakeTimeout: -1,
	}
	m := newManager(t, Options{Source: wrap(source), PollInterval: time.Hour})
	s, n := source.state, newACMEName(acmeTestName, false)
	s.mu.Lock()
	s.names[n.name] = n
	s.mu.Unlock()
	return m, s, n
}

// issueACME makes a certificate as a CA would issue it to the source.
func issueACME(t *testing.T, ca *tlstest.CA, notBefore, notAfter time.Time) *tls.Certificate {
	t.Helper()
	pair := ca.Issue(t, tlstest.Leaf{Names: []string{acmeTestName}, NotBefore: notBefore, NotAfter: notAfter})
	recorded.key(pair.Key)
	cert := pair.Certificate()
	return &cert
}

func servesACME(m *Manager) bool { return m.current.Load().names.lookup(acmeTestName) != nil }

// What the keeper read before the source got a certificate, or lost one, does not undo that when
// it is loaded after it.
func TestPushIsNotUndone(t *testing.T) {
	standIn := Static{Certificates: []tls.Certificate{tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Certificate()}}
	for what, wrap := range map[string]func(*ACME) Source{
		"beside others": func(a *ACME) Source { return Sources{a, standIn} },
		"nested":        func(a *ACME) Source { return Sources{standIn, Sources{a}} },
		"alone":         func(a *ACME) Source { return a },
	} {
		t.Run(what, func(t *testing.T) {
			m, s, n := idleACME(t, wrap)
			cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
			before, number, err := m.read()
			require.NoError(t, err)
			s.adopt(n, cert)
			require.True(t, servesACME(m))
			_, err = m.load(before, number)
			require.NoError(t, err)
			assert.True(t, servesACME(m), "an older reading")

			before, number, err = m.read()
			require.NoError(t, err)
			s.expire(n, cert)
			require.False(t, servesACME(m))
			_, err = m.load(before, number)
			require.NoError(t, err)
			assert.False(t, servesACME(m), "what is out of service stays out of it")
		})
	}
}

// A certificate of a public CA takes the place of the fallback of a private one, to whose roots
// it does not lead.
func TestACMEBesideAPrivateCA(t *testing.T) {
	private := tlstest.NewCA(t)
	m, s, n := idleACME(t, func(a *ACME) Source {
		return Sources{a, Static{
			Certificates: []tls.Certificate{private.Issue(t, tlstest.Leaf{Names: []string{acmeTestName}}).Certificate()},
			ClientCAs:    private.Pool(), RootCAs: private.Pool(),
		}}
	})
	cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	s.adopt(n, cert)
	assert.Empty(t, m.Status().LastError)
	assert.Equal(t, cert.Leaf.Raw, m.current.Load().names.lookup(acmeTestName)[0].tls.Leaf.Raw)
}

// What is about to be taken out of service is not put in service again from the cache.
func TestLastMomentIsNotTakenFromTheCache(t *testing.T) {
	_, s, n := idleACME(t, func(a *ACME) Source { return a })
	for left, usable := range map[time.Duration]bool{time.Minute: true, 900 * time.Millisecond: false, -time.Minute: false} {
		cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-24*time.Hour), time.Now().Add(left))
		data, err := encodeCached(*cert)
		require.NoError(t, err)
		require.NoError(t, s.put(t.Context(), n.name, data))
		assert.Equal(t, usable, s.load(t.Context(), n) != nil, "%v before its end", left)
	}
}

// What makes no sense is kept under another name, and out of the way.
func TestSetAside(t *testing.T) {
	_, s, n := idleACME(t, func(a *ACME) Source { return a })
	require.NoError(t, s.put(t.Context(), n.name, []byte("nonsense")))
	require.NoError(t, s.put(t.Context(), accountCacheKey, []byte("nonsense too")))
	assert.Nil(t, s.load(t.Context(), n))
	key, err := s.accountKey(t.Context())
	require.NoError(t, err)
	_, err = s.get(t.Context(), n.name)
	assert.ErrorIs(t, err, autocert.ErrCacheMiss)
	for name, want := range map[string]string{n.name: "nonsense", accountCacheKey: "nonsense too"} {
		kept, err := s.get(t.Context(), name+"+unreadable")
		require.NoError(t, err)
		assert.Equal(t, want, string(kept))
	}
	again, err := s.accountKey(t.Context())
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

// A shared cache is read all the time: when it is away that is told once.
func TestUnreadableCacheIsToldOnce(t *testing.T) {
	var away atomic.Bool
	m, s, n := idleACME(t, func(a *ACME) Source {
		a.Cache = cacheWithout{a.Cache, &away}
		return a
	})
	events := collect(m)
	for range 2 {
		away.Store(true)
		for range 3 {
			assert.False(t, s.look(t.Context(), n, nil))
		}
		away.Store(false)
		assert.False(t, s.look(t.Context(), n, nil))
	}
	m.events.emit(Event{Kind: Drift}) // the last
	eventually(t, "all events", func() bool { return len(events(Drift)) == 1 })
	assert.Len(t, events(CacheFailed), 2)
}

// The long waits of failures while there was time left are not those of a name without a certificate.
func TestBackOffBeginsAnewAtTheEnd(t *testing.T) {
	m, s, n := idleACME(t, func(a *ACME) Source { return a })
	cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(30*time.Hour))
	s.adopt(n, cert)
	wait := func() time.Duration {
		s.postpone(n, errors.New("the CA is down"))
		return time.Until(s.status()[0].Next)
	}
	for range 8 {
		wait()
	}
	assert.Greater(t, wait(), time.Hour)
	s.expire(n, cert)
	assert.Less(t, wait(), 2*time.Second)
	assert.Less(t, wait(), 4*time.Second)
	assert.Equal(t, 11, m.Status().ACME[0].Failures)
	for range 8 {
		wait()
	}
	assert.Greater(t, wait(), 50*time.Minute)
}

// A policy that refuses a name which is served, for example since its database is away, does not
// take it out of service, and is asked again.
func TestPolicyThatFailsIsAskedAgain(t *testing.T) {
	var away atomic.Bool
	m, s, n := idleACME(t, func(a *ACME) Source {
		a.HostPolicy = func(_ context.Context, host string) error {
			if away.Load() || host != acmeTestName {
				return errors.New("the database is away")
			}
			return nil
		}
		return a
	})
	events := collect(m)
	cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	s.adopt(n, cert)
	away.Store(true)
	for range 3 {
		wanted, known := s.stillWanted(t.Context(), n, true, 0)
		assert.False(t, wanted)
		assert.True(t, known)
	}
	assert.True(t, servesACME(m))
	status := m.Status().ACME[0]
	assert.Contains(t, status.Error, "the database is away")
	assert.Less(t, time.Until(status.Next), 8*time.Minute, "a tenth of what is left")
	eventually(t, "one warning", func() bool { return len(events(ACMEWarning)) == 1 })

	away.Store(false)
	wanted, _ := s.stillWanted(t.Context(), n, true, 3)
	assert.True(t, wanted)
	away.Store(true)
	s.expire(n, cert)
	n.asked <- struct{}{}
	_, known := s.stillWanted(t.Context(), n, false, 3)
	assert.False(t, known, "without a certificate the policy decides")
	assert.Empty(t, m.Status().ACME)
	assert.Len(t, events(ACMEWarning), 1)
}

// Where timers stood still, as while a machine sleeps, what ended meanwhile is taken out of service within
// a minute.
func TestExpiredWhileTheMachineSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s, n := idleACME(t, func(a *ACME) Source { return a })
		cert := issueACME(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour))
		s.adopt(n, cert)
		n.expiry.Stop()
		n.due, n.info.at = time.Now().Add(100*time.Hour), time.Now().Add(100*time.Hour)
		n.fixed = true // it does not look into the cache
		s.tending.Go(func() { s.tend(s.ctx, n) })
		time.Sleep(time.Hour - time.Minute)
		assert.True(t, servesACME(m))
		time.Sleep(2 * time.Minute)
		assert.False(t, servesACME(m))
	})
}

// The CA says when it is to be asked again, within bounds.
func TestRenewalInfoIsAskedAgain(t *testing.T) {
	var after string
	window := map[string]time.Time{"start": time.Now().Add(time.Hour), "end": time.Now().Add(2 * time.Hour)}
	ca := httptest.NewTLSServer(nil)
	defer ca.Close()
	mux := http.NewServeMux()
	ca.Config.Handler = mux
	mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"renewalInfo": "`+ca.URL+`/ari"}`) })
	mux.HandleFunc("/ari/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", after)
		json.NewEncoder(w).Encode(map[string]any{"suggestedWindow": window})
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	_, s, n := idleACME(t, func(a *ACME) Source {
		a.Directory, a.Roots = ca.URL+"/dir", roots
		return a
	})
	defer s.http.CloseIdleConnections()
	cert := issueACME(t, tlstest.NewCA(t), time.Now(), time.Now().Add(3*time.Hour))
	s.adopt(n, cert)
	asked := func() time.Duration {
		s.askWhen(t.Context(), n, cert.Leaf)
		return time.Until(n.info.at)
	}
	for value, want := range map[string]time.Duration{
		"7200": 2 * time.Hour, "": 6 * time.Hour, "nonsense": 6 * time.Hour, "1000000": 24 * time.Hour, "1": time.Second,
		time.Now().Add(3 * time.Hour).UTC().Format(http.TimeFormat): 3 * time.Hour,
	} {
		after = value
		assert.InDelta(t, want.Seconds(), asked().Seconds(), 30, value)
		assert.Equal(t, renewalID(cert.Leaf), n.info.id)
	}
	due := s.status()[0].Next
	assert.WithinRange(t, due, window["start"], window["end"])
	window["end"] = window["start"].Add(-time.Second)
	assert.InDelta(t, 6*time.Minute.Seconds(), asked().Seconds(), 30, "a thirtieth of the lifetime after nonsense")
	assert.Equal(t, due, s.status()[0].Next, "which changes nothing")
}

// At start only what New waits for is ordered at once: all else has to be answered by the program's own
// server, which listens later.
func TestOrdersAtStartWaitForTheServer(t *testing.T) {
	for _, background := range []bool{false, true} {
		source := &ACME{Domains: []string{"due.example.test", "young.example.test", "missing.example.test"}, Background: background}
		o, err := source.ready()
		require.NoError(t, err)
		s, began := newACMEState(source, o, &Manager{}), time.Now()
		due, young, missing := s.names["due.example.test"], s.names["young.example.test"], s.names["missing.example.test"]
		due.due, young.due = began.Add(-time.Hour), began.Add(time.Hour)
		s.giveTimeToListen([]*acmeName{missing})
		assert.False(t, due.due.Before(began.Add(backgroundDelay)))
		assert.Equal(t, began.Add(time.Hour), young.due)
		assert.Equal(t, background, missing.due.After(began))
	}
}
