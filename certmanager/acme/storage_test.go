package acme

import (
	"context"
	"errors"
	"strings"
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

// What is about to be taken out of service is not put in service again from the cache.
func TestLastMomentIsNotTakenFromTheCache(t *testing.T) {
	s, n, _ := idle(t)
	for left, usable := range map[time.Duration]bool{time.Minute: true, 900 * time.Millisecond: false, clockEvery: false, -time.Minute: false} {
		data, err := encodeCached(issue(t, tlstest.NewCA(t), time.Now().Add(-24*time.Hour), time.Now().Add(left)))
		require.NoError(t, err)
		require.NoError(t, s.put(t.Context(), s.cas[0].certKey(n), data))
		assert.Equal(t, usable, s.load(t.Context(), n) != nil, "%v before its end", left)
	}
}

// What makes no sense is kept under another name, and out of the way.
func TestSetAside(t *testing.T) {
	s, n, _ := idle(t)
	c := s.cas[0]
	require.NoError(t, s.put(t.Context(), c.certKey(n), []byte("nonsense")))
	require.NoError(t, s.put(t.Context(), c.accountKey(), []byte("nonsense too")))
	assert.Nil(t, s.load(t.Context(), n))
	key, err := s.accountKey(t.Context(), c)
	require.NoError(t, err)
	_, err = s.get(t.Context(), c.certKey(n))
	assert.ErrorIs(t, err, autocert.ErrCacheMiss)
	for name, want := range map[string]string{c.certKey(n): "nonsense", c.accountKey(): "nonsense too"} {
		kept, err := s.get(t.Context(), name+"+unreadable")
		require.NoError(t, err)
		assert.Equal(t, want, string(kept))
	}
	again, err := s.accountKey(t.Context(), c)
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

// A shared cache is read all the time: when it is away that is reported once, and no other account
// is made.
func TestUnreadableCacheIsReportedOnce(t *testing.T) {
	var away atomic.Bool
	s, n, r := idle(t, func(a *Source) { a.Cache = cacheWithout{a.Cache, &away} })
	for range 2 {
		away.Store(true)
		for range 3 {
			assert.False(t, s.loadNewer(t.Context(), n, nil))
		}
		_, err := s.accountKey(t.Context(), s.cas[0])
		require.ErrorContains(t, err, "the cache is away")
		away.Store(false)
		assert.False(t, s.loadNewer(t.Context(), n, nil))
	}
	assert.Len(t, r.of(certmanager.CacheFailed), 2)
}

// While the cache cannot be written to nothing is ordered but what is about to end in service.
func TestOrdersWaitForTheStorage(t *testing.T) {
	s, n, _ := idle(t, func(a *Source) { a.Cache = autocert.DirCache("/dev/null/folder") })
	require.ErrorContains(t, s.obtain(t.Context(), n, nil), "nothing is ordered that cannot be stored")
	for left, ordered := range map[time.Duration]bool{20 * time.Hour: false, time.Hour: true} {
		cert := issue(t, tlstest.NewCA(t), time.Now().Add(-80*time.Hour), time.Now().Add(left))
		err := s.obtain(t.Context(), n, cert)
		require.Error(t, err)
		assert.Equal(t, ordered, !strings.Contains(err.Error(), "nothing is ordered"), "%v: %v", left, err)
	}
	s.storageOK.Store(true)
	n.unsaved.Store(issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour)))
	s.save(t.Context(), n)
	require.ErrorContains(t, s.obtain(t.Context(), n, nil), "nothing is ordered", "after what could not be stored")
}

// hangingCache is a Cache that does not answer.
type hangingCache struct{ autocert.Cache }

func (hangingCache) Get(ctx context.Context, _ string) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (hangingCache) Put(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}
func (hangingCache) Delete(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }

// A cache that hangs takes a part of the time that an attempt has, also when an entry is removed
// or a certificate is stored, which is done after the end of the attempt too.
func TestCacheThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n, _ := idle(t, func(a *Source) { a.Cache = hangingCache{a.Cache} })
		cert := issue(t, tlstest.NewCA(t), time.Now(), time.Now().Add(time.Hour))
		for what, access := range map[string]func(context.Context) error{
			"get":    func(ctx context.Context) error { _, err := s.get(ctx, "key"); return err },
			"put":    func(ctx context.Context) error { return s.put(ctx, "key", nil) },
			"remove": func(ctx context.Context) error { return s.remove(ctx, "key") },
			"store":  func(ctx context.Context) error { return s.store(ctx, n, s.cas[0], cert) },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			began := time.Now()
			require.ErrorIs(t, access(ctx), context.DeadlineExceeded, what)
			assert.Equal(t, 2*time.Second, time.Since(began), what)
			cancel()
			began = time.Now()
			require.Error(t, access(ctx), what)
			assert.Equal(t, what == "remove" || what == "store", time.Since(began) > 0, what)
		}
	})
}

// deafCache is a Cache that does not know of contexts.
type deafCache struct {
	autocert.Cache
	until, released chan struct{}
}

func (c deafCache) Get(context.Context, string) ([]byte, error) {
	<-c.until
	return nil, autocert.ErrCacheMiss
}

func (c deafCache) Lock(context.Context, string) (func(), error) {
	<-c.until
	return func() { close(c.released) }, nil
}

// A Cache that does not return when its context has ended holds nothing up. So many calls are left
// behind, and no further one is made until they return.
func TestCacheThatDoesNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := deafCache{until: make(chan struct{}), released: make(chan struct{})}
		s, _, _ := idle(t, func(a *Source) { a.Cache = cache })
		ended, end := context.WithCancel(t.Context())
		end()
		start := time.Now()
		_, err := s.get(ended, "key")
		require.ErrorIs(t, err, context.Canceled)
		assert.Zero(t, time.Since(start), "Close makes no call that it would wait for")
		for i := range maxAbandoned + 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			began := time.Now()
			var err error
			if i == 0 {
				_, err = s.lock(ctx, "key")
			} else {
				_, err = s.get(ctx, "key")
			}
			require.ErrorIs(t, err, errAbandoned)
			took := time.Since(began)
			if i < maxAbandoned {
				assert.LessOrEqual(t, took, 8*time.Second+abandonAfter)
				assert.Greater(t, took, time.Duration(0))
			} else {
				assert.Zero(t, took)
			}
			cancel()
		}
		for range maxAbandoned {
			cache.until <- struct{}{}
		}
		<-cache.released // the lock is given back
		synctest.Wait()
		assert.Zero(t, s.abandoned.cache.Load())
		go func() { cache.until <- struct{}{} }()
		_, err = s.get(t.Context(), "key")
		assert.ErrorIs(t, err, autocert.ErrCacheMiss)
	})
}
