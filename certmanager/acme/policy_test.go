package acme

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

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
		assert.NotNil(t, s.serving(n))
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

// A policy that does not return takes nothing from the renewals of Domains: the Cache is still
// asked.
func TestPolicyThatDoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := make(chan struct{})
		s, _, _ := idle(t, func(a *Source) {
			a.HostPolicy = func(_ context.Context, host string) error {
				if host == "hangs.example.test" {
					<-until
				}
				return errors.New("not here")
			}
		})
		for range maxAbandoned {
			assert.ErrorIs(t, s.o.askPolicy(t.Context(), &s.abandoned.policy, "hangs.example.test"), errAbandoned)
		}
		began := time.Now()
		assert.ErrorContains(t, s.o.askPolicy(t.Context(), &s.abandoned.policy, testDomain), "acme.Source.HostPolicy is not called: 20 calls are still running")
		assert.Zero(t, time.Since(began))
		_, err := s.get(t.Context(), "key")
		assert.ErrorIs(t, err, autocert.ErrCacheMiss)
		close(until)
	})
}

// A HostPolicy that ends its goroutine allows nothing.
func TestPolicyThatEndsItsGoroutine(t *testing.T) {
	s, _, _ := idle(t, func(a *Source) {
		a.HostPolicy = func(context.Context, string) error {
			runtime.Goexit()
			return nil
		}
	})
	assert.ErrorIs(t, s.o.askPolicy(t.Context(), &s.abandoned.policy, testDomain), errExited)
}
