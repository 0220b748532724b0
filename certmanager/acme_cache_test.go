package certmanager

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/tlstest"
)

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

// The end of a certificate is told by its source alone, however late that is on a busy machine.
func TestExpiredIsToldOnce(t *testing.T) {
	m, s, n := idleACME(t, func(a *ACME) Source { return a })
	cert := issueACME(t, tlstest.NewCA(t), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	s.adopt(n, cert)
	eventually(t, "the certificate", func() bool { return servesACME(m) })
	var c expiry
	events, _ := c.due(m.current.Load(), cert.Leaf.NotAfter.Add(time.Second))
	for _, e := range events {
		assert.Equal(t, Expiring, e.Kind)
	}
	assert.NotEmpty(t, events)
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
	m.events.emit(Event{Kind: OrderFailed}) // the last
	eventually(t, "all events", func() bool { return len(events(OrderFailed)) == 1 })
	assert.Len(t, events(CacheFailed), 2)
}
