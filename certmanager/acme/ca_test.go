package acme

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	xacme "github.com/mholt/acmez/v3/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

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
	assert.InDelta(t, 6*time.Hour.Seconds(), asked().Seconds(), 30)
	assert.Equal(t, due, s.status()[0].Next, "which changes nothing")
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
		if r.URL.Path == "/long" {
			json.NewEncoder(w).Encode(map[string]string{"type": strings.Repeat("é", 1000), "detail": strings.Repeat("é", 100_000)})
			return
		}
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
	body, err := call(t.Context(), "directory", func(ctx context.Context) ([]byte, error) { return get(ctx, "/endless") })
	require.Error(t, err)
	assert.LessOrEqual(t, len(body), maxAnswer)
	_, err = call(t.Context(), "order", func(ctx context.Context) ([]byte, error) {
		_, err := get(ctx, "/long")
		return nil, cmp.Or(err, errors.New("refused"))
	})
	require.ErrorContains(t, err, "…")
	assert.Less(t, len(err.Error()), maxProblem+100)
	assert.True(t, utf8.ValidString(err.Error()))
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

// The orders of an account at Let's Encrypt keep its limit: 300, and one more every 36 seconds.
func TestOrdersOfAnAccountAreSpaced(t *testing.T) {
	s, n, _ := idle(t, func(a *Source) { a.Directory = "" })
	letsEncrypt := s.cas[0]
	assert.True(t, letsEncrypt.orders.AllowN(time.Now(), 300))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	_, err := s.newOrder(ctx, &client{ca: letsEncrypt}, n, xacme.ChallengeTypeTLSALPN01)
	require.ErrorIs(t, err, errTooMany, "36 seconds are longer than this attempt has")
	assert.NotErrorIs(t, err, errOrderLost)
	assert.False(t, isInvalid(err))
	assert.Less(t, time.Since(began), 10*time.Second)
	other, _, _ := idle(t)
	assert.True(t, other.cas[0].orders.AllowN(time.Now(), 1000), "other CAs have other limits")
}

// A name that waits while other orders run has not failed, however long they take.
func TestWaitingForOtherOrdersIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, r := idle(t, func(a *Source) { a.Domains, a.HostPolicy = []string{testDomain}, nil })
		n.fixed = true
		var releases []func()
		for range maxOrders {
			release, err := acquire(t.Context(), s.slots[place{fixed: true}])
			require.NoError(t, err)
			releases = append(releases, release)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.renew(t.Context(), n)
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Empty(t, r.of(certmanager.OrderFailed))
		assert.Zero(t, s.status()[0].Failures)
		releases[0]()
		<-done
		assert.Len(t, r.of(certmanager.OrderFailed), 1, "the CA is not there")
	})
}

// Names that cannot be issued use up what the CA allows, and wait for more. Renewals do not count,
// and are not held up.
func TestRenewalsDoNotWaitForOtherOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, _ := idle(t, func(a *Source) { a.Directory = "" })
		n.fixed = true
		letsEncrypt := s.cas[0]
		c := &client{ca: letsEncrypt, Client: letsEncrypt.newClient(xacme.Directory{})}
		letsEncrypt.orders.AllowN(time.Now(), 300)
		order := func() time.Duration {
			began := time.Now()
			_, err := s.newOrder(t.Context(), c, n, xacme.ChallengeTypeTLSALPN01)
			require.ErrorContains(t, err, "order: ") // it is made, and the CA cannot be reached
			return time.Since(began)
		}
		assert.GreaterOrEqual(t, order(), 36*time.Second)
		assert.Less(t, order(), time.Second, "what did not reach the CA does not count")
		cert := issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour))
		s.adopt(n, cert)
		assert.Less(t, order(), time.Second)

		for range maxOrders {
			_, err := acquire(t.Context(), s.slots[place{fixed: true}])
			require.NoError(t, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorContains(t, s.obtain(ctx, n, nil), "waiting for other orders")
		s.o.Cache = autocert.DirCache("/dev/null/folder") // which is tried when there is a place
		began := time.Now()
		require.ErrorContains(t, s.obtain(t.Context(), n, cert), "nothing is ordered that cannot be stored")
		assert.Zero(t, time.Since(began))
	})
}
