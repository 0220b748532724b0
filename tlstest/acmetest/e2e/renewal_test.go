package e2e

import (
	"crypto/ecdsa"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

const lifetime = 20 * time.Second

func short(t *testing.T) *acmetest.Server {
	return acmetest.StartWith(t, acmetest.Options{Lifetime: lifetime})
}

// Certificates of 20 seconds are renewed, with a new key each, without a failed handshake.
func TestRenewalUnderTraffic(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := short(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}})
	w.serve(t)
	key := w.mustDial(t, name).PublicKey.(*ecdsa.PublicKey)
	stop := w.traffic(t)
	w.eventually(t, "two renewals", func() bool { return len(w.events.of(certmanager.Issued)) >= 3 })
	met := stop()
	t.Logf("%d connections, %d certificates", met.connections, len(met.serials))
	assert.Empty(t, met.failures)
	assert.Zero(t, met.expired)
	assert.GreaterOrEqual(t, len(met.serials), 2)
	assert.LessOrEqual(t, ca.Orders(), len(w.events.of(certmanager.Issued))+len(w.events.of(certmanager.OrderFailed)), "no more than needed")
	assert.False(t, key.Equal(w.mustDial(t, name).PublicKey), "a new key")
}

// With the CA down for less than the renewal window, nothing expired is served, and no handshake
// fails.
func TestDownAtRenewal(t *testing.T) {
	needs.Long(t)
	for fault, begin := range bad {
		if fault == "slow" {
			continue // slower than the certificates live
		}
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second})
			w := start(t, ca, &acme.Source{Domains: []string{name}})
			w.serve(t)
			first := w.mustDial(t, name)
			stop := w.traffic(t)
			begin(ca)
			w.eventually(t, "the middle of the window, after a failed order", func() bool {
				return time.Until(first.NotAfter) < 6*time.Second && (fault == "hanging" || len(w.events.of(certmanager.OrderFailed)) > 0)
			})
			clearUp(ca)
			w.eventually(t, "the renewal", func() bool { return len(w.events.of(certmanager.Issued)) >= 2 })
			met := stop()
			assert.Empty(t, met.failures)
			assert.Zero(t, met.expired)
			t.Logf("%d connections, %d orders", met.connections, ca.Orders())
		})
	}
}

// With the CA down for longer, the fallback is served and not the expired certificate.
func TestDownForTooLong(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 10 * time.Second})
	standIn, leaf := fallback(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, HandshakeTimeout: 100 * time.Millisecond}, standIn)
	w.serve(t)
	stop := w.traffic(t)
	ca.Hang(true)
	w.eventually(t, "the fallback", func() bool { return leaf.Equal(w.mustDial(t, name, unverified)) })
	met := stop()
	assert.Empty(t, met.failures)
	assert.Zero(t, met.expired)
	assert.Len(t, w.events.of(certmanager.Expired), 1)
	clearUp(ca)
	w.eventually(t, "a certificate again", func() bool {
		_, err := w.dial(t.Context(), name)
		return err == nil
	})
}

// RenewBefore that is longer than the lifetime does not order without a pause.
func TestRenewBeforeTooLong(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := short(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, RenewBefore: 30 * 24 * time.Hour})
	w.serve(t)
	status := w.Status().ACME[0]
	assert.Less(t, status.NotAfter.Sub(status.Next), lifetime*55/100, "half of the lifetime, and jitter")
	require.Len(t, w.events.of(certmanager.Warning), 1)
	assert.Contains(t, w.events.of(certmanager.Warning)[0], "RenewBefore")
	w.eventually(t, "the renewal", func() bool { return ca.Orders() >= 2 })
	assert.False(t, time.Now().Before(status.Next), "not earlier")
}

// What the CA says about renewal is honoured, also when it changes its mind.
func TestRenewalInfo(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 15 * time.Minute})
	ca.SetRenewalInfo(time.Now().Add(8*time.Minute), time.Now().Add(9*time.Minute), time.Second)
	w := start(t, ca, &acme.Source{Domains: []string{name}})
	w.serve(t)
	w.eventually(t, "the CA's time", func() bool {
		left := time.Until(w.Status().ACME[0].Next)
		return left > 7*time.Minute && left < 9*time.Minute
	})
	assert.Equal(t, 1, ca.Orders())
	past := time.Now().Add(-time.Hour)
	ca.SetRenewalInfo(past, past.Add(time.Minute), time.Second)
	w.eventually(t, "the earliest time", func() bool {
		left := time.Until(w.Status().ACME[0].Next)
		return left > 30*time.Second && left < 2*time.Minute // a tenth of the lifetime: no order after the other
	})
}

// A CA that wants certificates renewed early gets its way.
func TestRenewalInfoNow(t *testing.T) {
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second})
	past := time.Now().Add(-time.Hour)
	ca.SetRenewalInfo(past, past.Add(time.Minute), time.Second)
	w := start(t, ca, &acme.Source{Domains: []string{name}})
	w.serve(t)
	first := w.mustDial(t, name)
	w.eventually(t, "the renewal", func() bool { return ca.Orders() >= 2 })
	assert.Greater(t, time.Until(first.NotAfter), 11*time.Second, "before a third of the lifetime is left")
	w.eventually(t, "the order that says what it replaces", func() bool { return ca.Replacements() >= 1 })
}

// Where the CA will not have it that an order replaces a certificate, since another has already,
// the order replaces none.
func TestReplacedAlready(t *testing.T) {
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: time.Minute})
	folders := [2]string{t.TempDir(), t.TempDir()}
	for serial := big.NewInt(0); serial.BitLen()%8 == 0; { // Pebble does not find those by an ID as RFC 9773 has it
		found, err := filepath.Glob(filepath.Join(folders[0], name+"+*"))
		require.NoError(t, err)
		for _, file := range found {
			require.NoError(t, os.Remove(file))
		}
		w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: autocert.DirCache(folders[0])})
		_, ok := serial.SetString(w.Status().Certificates[0].Serial, 16)
		require.True(t, ok)
		require.NoError(t, w.Close())
	}
	require.NoError(t, os.CopyFS(folders[1], os.DirFS(folders[0])))
	first := ca.Orders()
	past := time.Now().Add(-time.Hour)
	ca.SetRenewalInfo(past, past.Add(time.Minute), time.Second)
	for orders, folder := range folders {
		w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: autocert.DirCache(folder)})
		w.serve(t)
		w.eventually(t, "the renewal", func() bool { return len(w.events.of(certmanager.Issued)) == 1 })
		assert.Empty(t, w.events.of(certmanager.OrderFailed))
		require.NoError(t, w.Close())
		assert.Equal(t, first+1+orders, ca.Orders())
		assert.Equal(t, 1, ca.Replacements())
	}
}

// One name that the CA refuses does not keep another from being renewed, also where both are
// required; nor does another source that is broken.
func TestNamesDoNotDependOnEachOther(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 15 * time.Second})
	folder := t.TempDir()
	cert, key := tlstest.NewCA(t).Issue(t, tlstest.Leaf{Names: []string{"files.example.test"}}).Files(t, folder, "tls")
	w := &world{ca: ca, addr: freeAddr(t), events: &eventLog{}}
	ca.TLSALPN01(w.addr)
	var err error
	w.Manager, err = certmanager.New(certmanager.Options{
		RequireNames: []string{name, other}, Logger: slog.New(w.events), PollInterval: 100 * time.Millisecond,
		Source: certmanager.Sources{certmanager.Files{Cert: cert, Key: key}, &acme.Source{
			Domains: []string{name, other}, Directory: ca.Directory(), Roots: ca.Roots(), Listen: w.addr, Cache: autocert.DirCache(t.TempDir()),
		}},
	})
	require.NoError(t, err)
	defer w.Close()
	w.serve(t)
	ca.FailValidation(func(n string) bool { return n == other })
	require.NoError(t, os.WriteFile(key, []byte("broken"), 0o600))
	stop := w.traffic(t)
	w.eventually(t, "the end of the other", func() bool { return len(w.events.of(certmanager.Expired)) > 0 })
	assert.Contains(t, w.events.of(certmanager.Expired)[0], other)
	issued := len(w.events.of(certmanager.Issued))
	w.eventually(t, "another renewal", func() bool { return len(w.events.of(certmanager.Issued)) > issued })
	met := stop()
	assert.Empty(t, met.failures)
	assert.Zero(t, met.expired)
	require.NoError(t, w.mustDial(t, name).VerifyHostname(name))
	assert.NotEmpty(t, w.events.of(certmanager.Rejected), "the broken files are reported")
}
