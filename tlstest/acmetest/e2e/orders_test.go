package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// What one CA issued is not served where another is asked for, from either layout of the cache.
func TestEachCAHasItsStorage(t *testing.T) {
	t.Parallel()
	staging, production := acmetest.Start(t), acmetest.Start(t)
	folder := t.TempDir()
	cache := autocert.DirCache(folder)
	start := func(ca *acmetest.Server) *world {
		w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache})
		w.serve(t)
		w.mustDial(t, name) // verified by the roots of its CA
		require.NoError(t, w.Close())
		return w
	}
	start(staging)
	start(production)
	start(staging)
	assert.Equal(t, []int{1, 1}, []int{staging.Orders(), production.Orders()})

	// The old layout has no CA in its keys.
	for _, ca := range []*acmetest.Server{production, staging} {
		legacy := t.TempDir()
		cache = autocert.DirCache(legacy)
		contents, err := os.ReadFile(issuedBy(t, folder, staging))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(legacy, name), contents, 0o600))
		w := start(ca)
		if ca == production {
			assert.Contains(t, w.events.String(), "is not used: it was issued by")
		}
		after, err := os.ReadFile(filepath.Join(legacy, name))
		require.NoError(t, err)
		assert.Equal(t, contents, after, "it is left for autocert")
	}
	assert.Equal(t, []int{1, 2}, []int{staging.Orders(), production.Orders()})
}

// issuedBy is the entry of name that a CA issued.
func issuedBy(t *testing.T, folder string, ca *acmetest.Server) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, name+"+127.0.0.1-????????"))
	require.NoError(t, err)
	for _, file := range files {
		pair, err := tls.LoadX509KeyPair(file, file)
		require.NoError(t, err)
		intermediates := x509.NewCertPool()
		for _, der := range pair.Certificate[1:] {
			cert, err := x509.ParseCertificate(der)
			require.NoError(t, err)
			intermediates.AddCert(cert)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: ca.Roots(), Intermediates: intermediates}); err == nil {
			return file
		}
	}
	require.Fail(t, "no entry")
	return ""
}

// An order that is called ready after it was finalized, or not ready, and a certificate that is not
// there at once, are looked at again: the certificate that the CA makes is not lost.
func TestOrdersAreGoneOnWith(t *testing.T) {
	for what, fault := range map[string]func(ca *acmetest.Server){
		"ready":          func(ca *acmetest.Server) { ca.StayReady(2) },
		"not ready":      func(ca *acmetest.Server) { ca.NotReady(1) },
		"no certificate": func(ca *acmetest.Server) { ca.NoCertificate(2) },
		"all":            func(ca *acmetest.Server) { ca.StayReady(1); ca.NotReady(2); ca.NoCertificate(1) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			fault(ca)
			w := start(t, ca, &acme.Source{Domains: []string{name}})
			w.serve(t)
			w.mustDial(t, name)
			assert.Equal(t, 1, ca.Orders())
			assert.Empty(t, w.events.of(certmanager.OrderFailed))
		})
	}
}

// With a clock that is behind, the certificate that is not valid yet is kept until it is, and none
// is ordered beside it.
func TestClockBehind(t *testing.T) {
	clock.Step(-2 * time.Hour)
	set := sync.OnceFunc(func() { clock.Step(2 * time.Hour) })
	defer set()
	ca := acmetest.Start(t)
	cache := autocert.DirCache(t.TempDir())
	source := func() *acme.Source {
		return &acme.Source{Domains: []string{name}, Cache: cache, StartTimeout: 2 * time.Second}
	}
	for range 2 {
		_, err := tryStart(t, ca, source())
		require.ErrorContains(t, err, "clock of this machine")
	}
	background := source()
	background.Background = true
	w := start(t, ca, background)
	w.serve(t)
	w.eventually(t, "the warning", func() bool { return strings.Contains(w.events.String(), "If the clock is behind, set it") })
	assert.Equal(t, 1, ca.Orders())
	set()
	w.eventually(t, "the certificate", func() bool {
		_, err := w.dial(t.Context(), name)
		return err == nil
	})
	assert.Equal(t, 1, ca.Orders())
}

// Names that clients make up are bounded, in memory and at the CA, and keep no wanted name from its
// certificate.
func TestNamesOfClientsAreBounded(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 20 * time.Second})
	source := &acme.Source{
		Domains: []string{name}, MaxNames: 10, OrdersPerHour: 3, HandshakeTimeout: 100 * time.Millisecond,
		HostPolicy: func(_ context.Context, host string) error {
			if strings.HasSuffix(host, ".tenants.example.test") {
				return nil
			}
			return errors.New("not here")
		},
	}
	w := start(t, ca, source)
	w.serve(t)
	first := w.mustDial(t, name)
	before := runtime.NumGoroutine()
	var clients sync.WaitGroup
	for client := range 10 {
		clients.Go(func() {
			for i := range 50 {
				w.dial(t.Context(), fmt.Sprintf("a%d-%d.tenants.example.test", client, i), unverified)
			}
		})
	}
	clients.Wait()
	assert.LessOrEqual(t, len(w.Status().ACME), 11)
	assert.LessOrEqual(t, ca.Orders(), 1+3+2, "three of clients, and renewals of the wanted name")
	w.eventually(t, "few goroutines", func() bool { return runtime.NumGoroutine() < before+200 })
	w.eventually(t, "a renewal of the wanted name", func() bool { return !w.mustDial(t, name).Equal(first) })
	warnings := 0
	for _, line := range w.events.of(certmanager.Warning) {
		if strings.Contains(line, "OrdersPerHour") {
			warnings++
		}
	}
	assert.Equal(t, 1, warnings, "one line for all")
}

// The oldest idle name makes room for another, and is served from the cache when it is asked for
// again.
func TestOldestNameMakesRoom(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	names := []string{"a.example.test", "b.example.test", "c.example.test"}
	w := start(t, ca, &acme.Source{MaxNames: 2, HostPolicy: autocert.HostWhitelist(names...), HandshakeTimeout: 20 * time.Second})
	w.serve(t)
	for range 2 {
		for _, n := range names {
			w.mustDial(t, n)
			assert.LessOrEqual(t, len(w.Status().ACME), 2)
		}
	}
	assert.Equal(t, 3, ca.Orders())
}

// Where one CA issues nothing the next is asked, which is remembered, also over a restart; each has
// its account.
func TestFallbackCA(t *testing.T) {
	needs.Long(t)
	secret := []byte("0123456789abcdef0123456789abcdef")
	for fault, begin := range bad {
		if fault == "unvalidated" || fault == "slow" {
			continue
		}
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			first := short(t)
			second := acmetest.StartWith(t, acmetest.Options{Lifetime: lifetime, ExternalAccounts: map[string][]byte{"kid": secret}})
			cache := autocert.DirCache(t.TempDir())
			source := func() *acme.Source {
				return &acme.Source{Domains: []string{name}, Cache: cache, StartTimeout: 20 * time.Second, Fallbacks: []acme.CA{{
					Directory: second.Directory(), Roots: second.Roots(),
					ExternalAccount: &acme.ExternalAccount{KeyID: "kid", MACKey: base64.RawURLEncoding.EncodeToString(secret)},
				}}}
			}
			begin(first)
			bySecond := func(c *tls.Config) { c.RootCAs = second.Roots() }
			w := &world{}
			for range 2 {
				second.TLSALPN01("127.0.0.1:1")
				s := source()
				s.Listen = freeAddr(t)
				second.TLSALPN01(s.Listen)
				w = start(t, first, s)
				w.addr = s.Listen
				w.serve(t)
				w.mustDial(t, name, bySecond)
				assert.Equal(t, second.Directory(), w.Status().ACME[0].CA)
				assert.Equal(t, 1, second.Orders())
				if second.Orders() == 1 && len(w.events.of(certmanager.Issued)) == 1 {
					require.NoError(t, w.Close())
				}
			}
			clearUp(first)
			before := w.mustDial(t, name, bySecond)
			w.eventually(t, "the renewal", func() bool { return len(w.events.of(certmanager.Issued)) > 0 })
			w.eventually(t, "it is served", func() bool { return !w.mustDial(t, name, bySecond).Equal(before) })
			assert.Zero(t, first.Orders(), "the CA that issued last is asked first")
			assert.Equal(t, 1, second.Accounts())
		})
	}
}
