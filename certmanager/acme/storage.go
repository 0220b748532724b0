package acme

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
)

// The keys of autocert's cache, and the formats below, exist on its users' disks. Our keys end with
// the CA, so that a certificate of one CA is not mistaken for that of another.
const accountCacheKey = "acme_account+key"

func certCacheKey(name string, kind KeyType) string {
	if kind == RSA2048 {
		return name + "+rsa"
	}
	return name
}

func (c *ca) certKey(n *name) string { return certCacheKey(n.file(), c.s.o.Key) + "+" + c.id }

func (c *ca) accountKey() string { return accountCacheKey + "+" + c.id }

func tokenCertCacheKey(name string) string { return name + "+token" }

func httpTokenCacheKey(urlPath string) string { return path.Base(urlPath) + "+http-01" }

// setAsideCacheKey is the key under which an unreadable entry is kept for inspection.
func setAsideCacheKey(key string) string { return key + "+unreadable" }

// cacheTimeout limits one access to the cache.
const cacheTimeout = 10 * time.Second

// cacheTime returns how long an access to the cache may take within ctx.
func cacheTime(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(cacheTimeout, max(time.Until(end)/4, time.Second))
	}
	return cacheTimeout
}

// errUnreadable is the error of a cache entry with invalid contents.
var errUnreadable = errors.New("unreadable cache entry")

// locker is a Cache with a lock that several machines share.
type locker interface {
	Lock(ctx context.Context, name string) (unlock func(), err error)
}

// shared reports whether other machines may use the cache.
func (s *state) shared() bool {
	_, ok := s.o.Cache.(locker)
	return ok
}

func (s *state) lock(ctx context.Context, key string) (unlock func(), err error) {
	if folder, ok := s.o.Cache.(autocert.DirCache); ok {
		return lockFile(ctx, filepath.Join(string(folder), key+"+lock"))
	}
	l, ok := s.o.Cache.(locker)
	if !ok {
		return func() {}, nil
	}
	release, err := guard(ctx, &s.abandoned.cache, "Cache", func() (func(), error) {
		release, err := l.Lock(ctx, key)
		if err == nil && ctx.Err() != nil {
			release() // the caller may have stopped waiting
			return nil, ctx.Err()
		}
		return release, err
	})
	if err != nil {
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTimeout)
		defer cancel()
		if _, err := guard(ctx, &s.abandoned.cache, "Cache", func() (any, error) { release(); return nil, nil }); err != nil {
			s.emit(certmanager.CacheFailed, key, err)
		}
	}, nil
}

func isMiss(err error) bool { return errors.Is(err, autocert.ErrCacheMiss) }

// where returns a name of the cache for errors.
func (s *state) where() string {
	if folder, ok := s.o.Cache.(autocert.DirCache); ok {
		return "cache " + string(folder)
	}
	return "cache"
}

// access performs one access to an entry of the cache.
func (s *state) access(ctx context.Context, timeout time.Duration, doing, key string, do func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	data, err := guard(ctx, &s.abandoned.cache, "Cache", func() ([]byte, error) { return do(ctx) })
	if err != nil && !isMiss(err) {
		err = fmt.Errorf("%s: %s %s: %w", s.where(), doing, key, err)
	}
	return data, err
}

func (s *state) get(ctx context.Context, key string) ([]byte, error) {
	return s.access(ctx, cacheTime(ctx), "reading", key, func(ctx context.Context) ([]byte, error) {
		return s.o.Cache.Get(ctx, key)
	})
}

func (s *state) put(ctx context.Context, key string, data []byte) error {
	_, err := s.access(ctx, cacheTime(ctx), "writing", key, func(ctx context.Context) ([]byte, error) {
		return nil, s.o.Cache.Put(ctx, key, data)
	})
	return err
}

// remove removes an entry, even after ctx has ended.
func (s *state) remove(ctx context.Context, key string) error {
	_, err := s.access(context.WithoutCancel(ctx), cacheTime(ctx), "removing", key, func(ctx context.Context) ([]byte, error) {
		return nil, s.o.Cache.Delete(ctx, key)
	})
	return err
}

// tryStorage writes, reads and removes an entry: certificates that cannot be stored would be
// ordered again at each start.
func (s *state) tryStorage(ctx context.Context) error {
	key := "ergotls-try-" + strings.ToLower(rand.Text())
	err := s.put(ctx, key, []byte("may be removed\n"))
	if err == nil {
		_, err = s.get(ctx, key)
		err = errors.Join(err, s.remove(ctx, key))
	}
	if err != nil {
		return fmt.Errorf("nothing is ordered that cannot be stored: %w", err)
	}
	return nil
}

// setAside renames an entry that can never be used.
func (s *state) setAside(ctx context.Context, name, key string, data []byte, reason error) {
	err := s.put(ctx, setAsideCacheKey(key), data)
	if err == nil {
		err = s.remove(ctx, key)
	}
	s.emit(certmanager.CacheFailed, name, errors.Join(fmt.Errorf("%s: %s is set aside as %s: %w", s.where(), key, setAsideCacheKey(key), reason), err))
}

// accountKey returns the account key in the cache, that of autocert, or a new one.
func (s *state) accountKey(ctx context.Context, c *ca) (crypto.Signer, error) {
	for _, name := range []string{c.accountKey(), accountCacheKey} {
		data, err := s.get(ctx, name)
		if isMiss(err) {
			continue
		}
		if err != nil {
			return nil, err // it may be readable later, and identifies the account
		}
		key, err := decodeKey(data)
		if err != nil {
			s.setAside(ctx, "account", name, data, err)
			continue
		}
		if name != c.accountKey() {
			err = s.put(ctx, c.accountKey(), data)
		}
		return key, err
	}
	key, data, err := newKey(ECDSAP256)
	if err == nil {
		err = s.put(ctx, c.accountKey(), data)
	}
	return key, err
}
