package e2e

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// bad are faults of a CA with which no order succeeds.
var bad = map[string]func(ca *acmetest.Server){
	"hanging":     func(ca *acmetest.Server) { ca.Hang(true) },
	"slow":        func(ca *acmetest.Server) { ca.Slow(10 * time.Second) },
	"refusing":    func(ca *acmetest.Server) { ca.Refuse(http.StatusServiceUnavailable, time.Second) },
	"rate limit":  func(ca *acmetest.Server) { ca.Refuse(http.StatusTooManyRequests, time.Second) },
	"unvalidated": func(ca *acmetest.Server) { ca.FailValidation(func(string) bool { return true }) },
}

func clearUp(ca *acmetest.Server) {
	ca.Hang(false)
	ca.Slow(0)
	ca.Refuse(0, 0)
	ca.FailValidation(nil)
}

// A handshake waits no longer than HandshakeTimeout, and the order goes on without it.
func TestHandshakesDoNotWaitForTheCA(t *testing.T) {
	for fault, begin := range bad {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			standIn, leaf := fallback(t)
			w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name), HandshakeTimeout: 300 * time.Millisecond}, standIn)
			w.serve(t)
			begin(ca)
			for range 3 {
				began := time.Now()
				got, err := w.dial(t.Context(), name, unverified)
				require.NoError(t, err)
				assert.True(t, leaf.Equal(got), "the fallback while there is none")
				assert.Less(t, time.Since(began), 20*time.Second, "an order that does not end takes minutes")
			}
			clearUp(ca)
			if fault == "unvalidated" || fault == "slow" {
				return // the next try is 10 seconds away
			}
			w.eventually(t, "the order goes on, "+fault, func() bool {
				_, err := w.dial(t.Context(), name)
				return err == nil
			})
		})
	}
}

// The wait ends with the context of the handshake.
func TestHandshakesStopWithTheirContext(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name), HandshakeTimeout: time.Hour})
	ca.Hang(true)
	before := ca.Requests()
	clientEnd, serverEnd := net.Pipe()
	defer clientEnd.Close()
	defer serverEnd.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- tls.Server(serverEnd, w.ServerTLS()).HandshakeContext(ctx) }()
	go tls.Client(clientEnd, &tls.Config{ServerName: name}).HandshakeContext(ctx)
	w.eventually(t, "an order", func() bool { return ca.Requests() > before })
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// A validation that fails is not repeated by handshakes, and the CA's reason is reported.
func TestBackOffAndReason(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name), HandshakeTimeout: time.Minute})
	w.serve(t)
	ca.FailValidation(func(string) bool { return true })
	w.dial(t.Context(), name)
	w.eventually(t, "a failure", func() bool { return len(w.events.of(certmanager.OrderFailed)) == 1 })
	orders, status := ca.Orders(), w.Status().ACME[0]
	began := time.Now()
	for range 50 {
		_, err := w.dial(t.Context(), name)
		require.Error(t, err)
	}
	if now := ca.Orders(); time.Now().Before(status.Next) {
		assert.Equal(t, orders, now, "the next try is not before 30 seconds")
	}
	assert.Less(t, time.Since(began), 50*time.Second, "they do not wait for it")
	event := w.events.of(certmanager.OrderFailed)[0]
	assert.Contains(t, event, "Could not resolve URL", "the CA's own words")
	assert.Contains(t, event, name)
	assert.Contains(t, status.Error, "Could not resolve URL")
	assert.Equal(t, 1, status.Failures)
}

// At start the CA's reason is the error of New.
func TestRefusedAtStart(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	ca.FailValidation(func(n string) bool { return n == other })
	source := &acme.Source{Domains: []string{name, other}}
	began := time.Now()
	_, err := tryStart(t, ca, source)
	require.ErrorContains(t, err, "Could not resolve URL")
	require.ErrorContains(t, err, other)
	assert.Contains(t, err.Error(), name+": issued and stored; set Background")
	assert.Contains(t, err.Error(), "on port 443 of "+other)
	assert.Contains(t, err.Error(), "make demo-acme")
	assert.Less(t, time.Since(began), 30*time.Second, "not after StartTimeout")

	ca.FailValidation(nil)
	source.Listen = ""
	w := start(t, ca, source) // the same source may be used again
	assert.Equal(t, 1, ca.Orders(name))
	require.NoError(t, w.Close())
}

// A Retry-After is honoured.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	ca.Refuse(http.StatusServiceUnavailable, 3*time.Second)
	began := time.Now()
	w := start(t, ca, &acme.Source{Domains: []string{name}, Background: true})
	w.serve(t)
	w.eventually(t, "a refusal", func() bool { return len(w.events.of(certmanager.OrderFailed)) == 1 })
	requests, next := ca.Requests(), w.Status().ACME[0].Next
	assert.Greater(t, next.Sub(began), 3*time.Second)
	ca.Refuse(0, 0)
	w.eventually(t, "the next try", func() bool { return ca.Requests() > requests })
	assert.False(t, time.Now().Before(next))
	w.eventually(t, "a certificate", func() bool { return w.Status().ACME[0].Serving })
}

// A CA that is down when the program starts: an error, or with Background the fallback until
// it is there.
func TestDownAtStart(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	for _, begin := range []func(*acmetest.Server){bad["hanging"], bad["refusing"]} {
		begin(ca)
		began := time.Now()
		_, err := tryStart(t, ca, &acme.Source{Domains: []string{name}, StartTimeout: 300 * time.Millisecond})
		require.ErrorContains(t, err, "StartTimeout")
		assert.Less(t, time.Since(began), 20*time.Second)
		clearUp(ca)
	}
	ca.Refuse(http.StatusServiceUnavailable, 0)

	standIn, leaf := fallback(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, Background: true, HandshakeTimeout: 100 * time.Millisecond}, standIn)
	w.serve(t)
	assert.True(t, leaf.Equal(w.mustDial(t, name, unverified)))
	ca.Refuse(0, 0)
	w.eventually(t, "the certificate", func() bool {
		_, err := w.dial(t.Context(), name)
		return err == nil
	})
	assert.Empty(t, w.events.of(certmanager.Warning), "a fallback is not better than what it stands in for")
}

func TestListenInUse(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	_, err = tryStart(t, acmetest.Start(t), &acme.Source{Domains: []string{name}, Listen: listener.Addr().String()})
	require.ErrorContains(t, err, "acme.Source.Listen")
}

// A CA that has lost the account gets it again.
func TestLostAccount(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, HostPolicy: autocert.HostWhitelist(other), HandshakeTimeout: 20 * time.Second})
	w.serve(t)
	require.NoError(t, ca.LoseAccounts())
	w.mustDial(t, other)
	assert.Equal(t, 2, ca.Accounts())
	assert.NotEmpty(t, w.events.of(certmanager.Warning))
	assert.Empty(t, w.events.of(certmanager.OrderFailed))
}

// HTTP-01 takes over where TLS-ALPN-01 fails, behind a proxy on any port.
func TestHTTP01BehindAnotherPort(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name), HandshakeTimeout: 20 * time.Second})
	ca.TLSALPN01() // closed
	ca.HTTP01(w.serveHTTP(t, w.HTTPHandler(nil)))
	w.serve(t)
	w.mustDial(t, name)
	assert.Equal(t, 2, ca.Orders(), "one for each kind of challenge")
}

func TestHTTPHandler(t *testing.T) {
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}})
	plain := "http://" + w.serveHTTP(t, w.HTTPHandler(nil))
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	get := func(path string) *http.Response {
		response, err := client.Get(plain + path)
		require.NoError(t, err)
		response.Body.Close()
		return response
	}
	response := get("/a?b=c")
	assert.Equal(t, http.StatusFound, response.StatusCode)
	assert.Equal(t, "https://127.0.0.1/a?b=c", response.Header.Get("Location"))
	for _, token := range []string{"", "short", "../../etc/passwd", strings.Repeat("a", 43), name} {
		assert.Equal(t, http.StatusNotFound, get("/.well-known/acme-challenge/"+token).StatusCode)
	}
	response, err := client.Post(plain+"/", "text/plain", nil)
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, http.StatusBadRequest, response.StatusCode)

	custom := w.HTTPHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	plain = "http://" + w.serveHTTP(t, custom)
	assert.Equal(t, http.StatusTeapot, get("/").StatusCode)
}
