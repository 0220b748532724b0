package e2e

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/libdns/libdns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// A policy that panics refuses, and says so.
func TestPolicyPanics(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, HostPolicy: func(_ context.Context, host string) error {
		if host == other {
			panic("the policy's fault")
		}
		return errors.New("not here")
	}})
	w.serve(t)
	for range 2 {
		_, err := w.dial(t.Context(), other, unverified)
		require.NoError(t, err, "the default certificate")
	}
	w.mustDial(t, name)
	require.Len(t, w.events.of(certmanager.Warning), 1)
	assert.Contains(t, w.events.of(certmanager.Warning)[0], "acme.Source.HostPolicy panicked: the policy's fault")
	assert.Equal(t, 1, ca.Orders())
}

// panickingCache is a Cache whose method of the given name panics.
type panickingCache struct {
	autocert.Cache
	method atomic.Pointer[string]
}

func (c *panickingCache) panicIn(method string) { c.method.Store(&method) }

func (c *panickingCache) call(method string) {
	if m := c.method.Load(); m != nil && *m == method {
		panic("the fault of " + method)
	}
}

func (c *panickingCache) Get(ctx context.Context, key string) ([]byte, error) {
	c.call("Get")
	return c.Cache.Get(ctx, key)
}

func (c *panickingCache) Put(ctx context.Context, key string, data []byte) error {
	c.call("Put")
	return c.Cache.Put(ctx, key, data)
}

func (c *panickingCache) Delete(ctx context.Context, key string) error {
	c.call("Delete")
	return c.Cache.Delete(ctx, key)
}

func (c *panickingCache) Lock(context.Context, string) (func(), error) {
	c.call("Lock")
	return func() { c.call("unlock") }, nil
}

// A Cache that panics is one that fails: at start, in orders, and in challenges.
func TestCachePanics(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"Get", "Put", "Delete", "Lock", "unlock"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			cache := &panickingCache{Cache: autocert.DirCache(t.TempDir())}
			w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache, HostPolicy: autocert.HostWhitelist(other)})
			w.serve(t)
			cache.panicIn(method)
			w.dial(t.Context(), other, unverified)
			w.eventually(t, "the panic", func() bool {
				if method == "Delete" { // what is left over ends by itself
					return len(w.events.of(certmanager.Issued)) == 2
				}
				return strings.Contains(w.events.String(), "acme.Source.Cache panicked: the fault of "+method)
			})
			w.mustDial(t, name)

			source := &acme.Source{Domains: []string{name}, Cache: &panickingCache{Cache: autocert.DirCache(t.TempDir())}}
			source.Cache.(*panickingCache).panicIn(method)
			if again, err := tryStart(t, ca, source); err != nil {
				require.ErrorContains(t, err, "the fault of "+method)
			} else {
				assert.Contains(t, again.events.String(), "the fault of "+method)
			}
		})
	}
}

// panickingProvider is a provider of which one method panics.
type panickingProvider struct {
	*acmetest.Provider
	appends, deletes bool
}

func (p panickingProvider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	if p.appends {
		panic("no token")
	}
	return p.Provider.AppendRecords(ctx, zone, records)
}

func (p panickingProvider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	if p.deletes {
		panic("no token")
	}
	return p.Provider.DeleteRecords(ctx, zone, records)
}

// A DNS provider that panics is one that fails.
func TestDNSProviderPanics(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	_, err := tryStart(t, ca, provided(ca, panickingProvider{Provider: ca.Provider(), appends: true, deletes: true}, zone))
	require.ErrorContains(t, err, "acme.Source.DNS panicked: no token")
	_, err = tryStart(t, ca, provided(ca, panickingProvider{}, zone)) // a nil pointer inside
	require.ErrorContains(t, err, "acme.Source.DNS panicked: runtime error")

	w := start(t, ca, provided(ca, panickingProvider{Provider: ca.Provider(), deletes: true}, zone))
	require.NotEmpty(t, w.events.of(certmanager.Warning))
	assert.Contains(t, w.events.of(certmanager.Warning)[0], "acme.Source.DNS panicked: no token")
}
