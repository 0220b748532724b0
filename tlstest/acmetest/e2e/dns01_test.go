package e2e

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// provided returns a source of DNS-01.
func provided(ca *acmetest.Server, provider acme.DNSProvider, domains ...string) *acme.Source {
	return &acme.Source{Domains: domains, DNS: provider, DNSServers: []string{ca.DNS()}, Listen: "nowhere"}
}

// A name and its wildcard have records under one name at once; none is left.
func TestDNS01(t *testing.T) {
	t.Parallel()
	ca := short(t)
	provider := ca.Provider()
	provider.Spread(500 * time.Millisecond)
	w := start(t, ca, provided(ca, provider, zone, wildcard, "a.example.test"))
	w.serve(t)
	for _, host := range []string{zone, "a.example.test", "b.example.test"} {
		w.mustDial(t, host)
	}
	assert.Equal(t, "a.example.test", w.mustDial(t, "a.example.test").DNSNames[0], "the narrower name wins")
	w.eventually(t, "no record is left", func() bool { return len(ca.TXT()) == 0 })
	assert.Equal(t, "example.test.", provider.Zones()[0])
	assert.Equal(t, "dns-01", w.Status().ACME[0].Challenge)
	first := w.mustDial(t, zone)
	w.eventually(t, "the renewal", func() bool { return !w.mustDial(t, zone).Equal(first) })
}

// _acme-challenge may be an alias in another zone.
func TestDNS01Alias(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	ca.SetCNAME("_acme-challenge.example.test", "challenges.elsewhere.test")
	provider := ca.Provider()
	start(t, ca, provided(ca, provider, wildcard))
	assert.Equal(t, "elsewhere.test.", provider.Zones()[0])
	assert.Empty(t, ca.TXT())
}

// A provider that fails, lies, is slow, or does not remove: the reason is reported, no validation
// fails, and what is left is removed later.
func TestDNS01ProviderFails(t *testing.T) {
	for what, c := range map[string]struct {
		begin func(*acmetest.Provider)
		want  string
	}{
		"failing": {func(p *acmetest.Provider) { p.Fail(errors.New("the token has ended")) }, "the token has ended"},
		"lying":   {func(p *acmetest.Provider) { p.Lie(true) }, "is not served after"},
		"hanging": {func(p *acmetest.Provider) { p.Slow(time.Hour) }, "did not write"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			provider := ca.Provider()
			c.begin(provider)
			source := provided(ca, provider, zone)
			source.DNSTimeout = time.Second
			if what == "hanging" {
				provider.Slow(3 * time.Second) // the removal takes as long
			}
			_, err := tryStart(t, ca, source)
			require.ErrorContains(t, err, c.want)
			provider.Fail(nil)
			provider.Lie(false)
			provider.Slow(0)
			start(t, ca, source)
			assert.Empty(t, ca.TXT())
		})
	}
}

// crashing is a provider of a program that ends before it removes its records.
type crashing struct{ *acmetest.Provider }

func (crashing) DeleteRecords(context.Context, string, []libdns.Record) ([]libdns.Record, error) {
	return nil, errors.New("the program has ended")
}

// What a crash has left is removed at the next start.
func TestDNS01AfterACrash(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	cache := autocert.DirCache(t.TempDir())
	source := provided(ca, crashing{ca.Provider()}, zone)
	source.Cache = cache
	w := start(t, ca, source)
	require.NoError(t, w.Close())
	assert.Len(t, ca.TXT(), 1)
	source.DNS = ca.Provider()
	again := start(t, ca, source)
	again.eventually(t, "no record is left", func() bool { return len(ca.TXT()) == 0 })
	assert.Equal(t, 1, ca.Orders(), "without an order")
}

// last is a provider of a program whose cache cannot be read after a record was written.
type last struct {
	*acmetest.Provider
	cache *brokenCache
}

func (l last) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	l.cache.fail(errors.New("the cache is away"), nil)
	return l.Provider.AppendRecords(ctx, zone, records)
}

// The record of an order is removed whatever the cache does.
func TestDNS01WithoutTheCache(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	cache := &brokenCache{Cache: autocert.DirCache(t.TempDir())}
	source := provided(ca, last{ca.Provider(), cache}, zone)
	source.Cache = cache
	start(t, ca, source)
	assert.Empty(t, ca.TXT())
}

// A record that cannot be removed, or not be noted, does not keep a certificate from being renewed
// until it expires.
func TestDNS01RecordThatStays(t *testing.T) {
	needs.Long(t)
	for what, fault := range map[string]struct{ get, put error }{
		"the provider does not remove it":     {},
		"the cache cannot be written":         {nil, syscall.ENOSPC},
		"the cache cannot be read or written": {syscall.EIO, syscall.EIO},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second})
			var provider acme.DNSProvider = ca.Provider()
			if fault.put == nil {
				provider = crashing{ca.Provider()}
			}
			cache := &brokenCache{Cache: autocert.DirCache(t.TempDir())}
			source := provided(ca, provider, zone)
			source.Cache = cache
			w := start(t, ca, source)
			w.serve(t)
			first := w.mustDial(t, zone)
			cache.fail(fault.get, fault.put)
			w.eventually(t, "the renewal", func() bool { return !w.mustDial(t, zone).Equal(first) })
			assert.Empty(t, w.events.of(certmanager.Expired))
			assert.LessOrEqual(t, ca.Orders(), 3, "at most one in vain")
		})
	}
}
