package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	xacme "golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/status"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// The first handshakes for a name come all at once: one order.
func TestStormOfFirstHandshakes(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name), HandshakeTimeout: 30 * time.Second})
	w.serve(t)
	errs := make(chan error, 50)
	for range cap(errs) {
		go func() {
			_, err := w.dial(t.Context(), name)
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	assert.Equal(t, 1, ca.Orders())
}

// What cannot be served gets the default certificate or a clean alert, and nothing is asked of the
// CA.
func TestHandshakesThatCannotBeServed(t *testing.T) {
	asks := map[string]string{"no SNI": "", "unknown": "unknown.example.test", "no dot": "localhost", "wildcard": "*.example.test", "address": "127.0.0.1"}
	for _, withFallback := range []bool{false, true} {
		ca := acmetest.Start(t)
		source := &acme.Source{HostPolicy: func(_ context.Context, host string) error {
			if host == asks["unknown"] || strings.HasSuffix(host, ".invalid") {
				return errors.New("not here")
			}
			return nil // what is no name has to be refused without its help
		}}
		var others []certmanager.Source
		var leaf *x509.Certificate
		if withFallback {
			var f certmanager.Source
			f, leaf = fallback(t)
			others = append(others, f)
		}
		w := start(t, ca, source, others...)
		w.serve(t)
		before := ca.Requests()
		for what, ask := range asks {
			got, err := w.dial(t.Context(), ask, unverified)
			if withFallback {
				require.NoError(t, err, what)
				assert.True(t, leaf.Equal(got), what)
			} else {
				assert.ErrorContains(t, err, "unrecognized name", what)
			}
			_, err = w.dial(t.Context(), ask, unverified, func(c *tls.Config) { c.NextProtos = []string{xacme.ALPNProto} })
			assert.ErrorContains(t, err, "unrecognized name", "a challenge, "+what)
		}
		assert.Equal(t, before, ca.Requests())
	}
}

// A client that asks for one name while another is being ordered is not held up.
func TestServedNamesDoNotWait(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, HostPolicy: autocert.HostWhitelist(other)})
	w.serve(t)
	ca.Hang(true)
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan struct{})
	go func() {
		w.dial(ctx, other)
		close(waiting)
	}()
	for range 20 {
		w.mustDial(t, name)
	}
	cancel()
	<-waiting
}

// A name that was ordered on demand is served after a restart, without an order; and until its
// policy changes its mind.
func TestOnDemand(t *testing.T) {
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 15 * time.Second})
	cache := autocert.DirCache(t.TempDir())
	var denied atomic.Bool
	source := func() *acme.Source {
		return &acme.Source{Cache: cache, HandshakeTimeout: 20 * time.Second, HostPolicy: func(_ context.Context, host string) error {
			if denied.Load() || host != name {
				return errors.New("not here")
			}
			return nil
		}}
	}
	first := start(t, ca, source())
	first.serve(t)
	leaf := first.mustDial(t, name)
	require.NoError(t, first.Close())

	ca.Refuse(http.StatusServiceUnavailable, 0)
	w := start(t, ca, source())
	w.serve(t)
	assert.True(t, leaf.Equal(w.mustDial(t, name)))
	assert.Equal(t, 1, ca.Orders())
	ca.Refuse(0, 0)
	w.eventually(t, "a renewal", func() bool { return ca.Orders() >= 2 })

	denied.Store(true)
	w.eventually(t, "the end", func() bool {
		_, err := w.dial(t.Context(), name, unverified)
		return err != nil
	})
	orders := ca.Orders()
	_, err := w.dial(t.Context(), name, unverified)
	require.ErrorContains(t, err, "unrecognized name")
	assert.Equal(t, orders, ca.Orders())
}

// With a negative HandshakeTimeout the first handshake begins the order and does not wait.
func TestNoWait(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	standIn, leaf := fallback(t)
	w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name), HandshakeTimeout: -1}, standIn)
	w.serve(t)
	assert.True(t, leaf.Equal(w.mustDial(t, name, unverified)))
	w.eventually(t, "the certificate", func() bool {
		_, err := w.dial(t.Context(), name)
		return err == nil
	})
	assert.Equal(t, 1, ca.Orders())
}

// Names that clients ask for do not have a server removed by its load balancer, whether they are
// issued or not. Domains without a certificate do.
func TestHealthOfNamesOfClients(t *testing.T) {
	t.Parallel()
	page := status.New()
	defer page.Close()
	health := func() string {
		answer := httptest.NewRecorder()
		page.Health().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
		return answer.Body.String()
	}
	ca := acmetest.Start(t)
	ca.FailValidation(func(n string) bool { return n == other })
	w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name, other)})
	w.serve(t)
	page.AddManager("main", w.Manager, nil)
	assert.Equal(t, "ok\n", health(), "nothing was asked for")
	_, err := w.dial(t.Context(), other)
	require.Error(t, err)
	assert.Equal(t, "ok\n", health(), "refused")
	w.mustDial(t, name)
	assert.Equal(t, "ok\n", health(), "served")

	w = start(t, ca, &acme.Source{Domains: []string{other}, Background: true})
	page.AddManager("main", w.Manager, nil)
	assert.Equal(t, "main: CertificatesValid: there is no certificate yet\n", health())
}
