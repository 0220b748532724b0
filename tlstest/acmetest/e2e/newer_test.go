package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// shared is a cache of several machines, in memory.
type shared struct {
	mu      sync.Mutex // guards the fields below
	entries map[string][]byte
	locks   map[string]chan struct{}
}

func newShared() *shared {
	return &shared{entries: map[string][]byte{}, locks: map[string]chan struct{}{}}
}

func (c *shared) Get(_ context.Context, key string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if data, ok := c.entries[key]; ok {
		return data, nil
	}
	return nil, autocert.ErrCacheMiss
}

func (c *shared) Put(_ context.Context, key string, data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[key] = data
	return nil
}

func (c *shared) Delete(_ context.Context, key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
	return nil
}

func (c *shared) Lock(ctx context.Context, name string) (unlock func(), err error) {
	c.mu.Lock()
	lock := c.locks[name]
	if lock == nil {
		lock = make(chan struct{}, 1)
		c.locks[name] = lock
	}
	c.mu.Unlock()
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A certificate of a fallback that ends before the one that it replaces stays in service, on all
// machines, and no other is ordered.
func TestFallbackOfAShorterLifetime(t *testing.T) {
	t.Parallel()
	for machines := 1; machines <= 2; machines++ {
		t.Run(fmt.Sprintf("%d machines", machines), func(t *testing.T) {
			t.Parallel()
			first := acmetest.StartWith(t, acmetest.Options{Lifetime: time.Minute})
			second := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second})
			past := time.Now().Add(-time.Hour)
			first.SetRenewalInfo(past, past.Add(time.Minute), 0)
			cache := newShared()
			var all []*world
			for range machines {
				w := start(t, first, &acme.Source{
					Domains: []string{name}, Cache: cache, Fallbacks: []acme.CA{{Directory: second.Directory(), Roots: second.Roots()}},
				})
				w.serve(t)
				all = append(all, w)
			}
			for _, w := range all {
				second.TLSALPN01(w.addr)
				w.eventually(t, "the first CA wants it renewed", func() bool { return time.Until(w.Status().ACME[0].Next) < 10*time.Second })
			}
			first.Refuse(http.StatusServiceUnavailable, 0)
			for _, w := range all {
				w.eventually(t, "the fallback", func() bool { return w.Status().ACME[0].CA == second.Directory() })
			}
			time.Sleep(4 * time.Second)
			for _, w := range all {
				assert.Equal(t, second.Directory(), w.Status().ACME[0].CA)
				w.mustDial(t, name, func(c *tls.Config) { c.RootCAs = second.Roots() })
			}
			assert.Equal(t, 1, second.Orders(), all[0].events)
		})
	}
}

// The Retry-After of one CA is honored, whichever it is, and does not keep the others from being
// asked.
func TestRetryAfterOfOneOfSeveral(t *testing.T) {
	t.Parallel()
	for _, waits := range []string{"the first", "the second"} {
		t.Run(waits, func(t *testing.T) {
			t.Parallel()
			first, second := acmetest.Start(t), acmetest.Start(t)
			limited, down := first, second
			if waits == "the second" {
				limited, down = second, first
			}
			limited.Refuse(http.StatusTooManyRequests, time.Hour)
			down.Refuse(http.StatusServiceUnavailable, 0)
			w := start(t, first, &acme.Source{
				Domains: []string{name}, Background: true, Fallbacks: []acme.CA{{Directory: second.Directory(), Roots: second.Roots()}},
			})
			w.serve(t)
			w.eventually(t, "three attempts", func() bool { return w.Status().ACME[0].Failures >= 3 })
			assert.Less(t, time.Until(w.Status().ACME[0].Next), time.Minute)
			assert.GreaterOrEqual(t, down.Requests(), 3)
			down.TLSALPN01(w.addr)
			down.Refuse(0, 0)
			w.eventually(t, "the certificate", func() bool { return w.Status().ACME[0].Serving })
			assert.Equal(t, down.Directory(), w.Status().ACME[0].CA)
			assert.Equal(t, 1, limited.Requests(), w.events)
		})
	}
}

// With a clock that is ahead of the CA's, so that the CA's time for the renewal of a new
// certificate has passed, one certificate is not ordered after the other.
func TestRenewalInfoAndClockAhead(t *testing.T) {
	const ahead = 95 * time.Minute
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 100 * time.Minute})
	when := time.Now().Add(time.Hour)
	ca.SetRenewalInfo(when, when.Add(time.Minute), 0)
	clock.Step(ahead)
	defer clock.Step(-ahead)
	w := start(t, ca, &acme.Source{Domains: []string{name}})
	w.serve(t)
	time.Sleep(3 * time.Second)
	assert.Equal(t, 1, ca.Orders(), w.events)
	assert.Greater(t, w.Status().ACME[0].Next.Sub(clock.Now()), 9*time.Minute)
}
