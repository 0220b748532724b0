// Package rediscache lets several machines share the certificates of an ACME source: it is an
// autocert.Cache in Redis, with a lock. Start with [New]:
//
//	client := redis.NewClient(&redis.Options{Addr: "redis.internal:6379", TLSConfig: ..., ContextTimeoutEnabled: true})
//	source := &acme.Source{Domains: ..., Cache: rediscache.New(client, "acme:")}
//
// One machine orders a certificate, any machine answers the CA's challenge, and the others load the
// certificate within a minute.
//
// Redis holds the private keys of the certificates and of the account unencrypted: protect it with
// TLS and an ACL. Turn its persistence on, or every name is ordered again after a restart of Redis.
//
// This package encrypts nothing and does not close the client.
package rediscache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"golang.org/x/crypto/acme/autocert"
)

const (
	// lease is how long a crashed machine keeps a lock. A running machine renews it in time.
	lease = 15 * time.Second

	// retry is the interval of attempts to get a lock that is held.
	retry = 100 * time.Millisecond

	// tokenLife is the time after which a challenge's answer expires if it is not removed.
	tokenLife = time.Hour
)

// Cache is an autocert.Cache. Its methods may be called from any goroutine.
type Cache struct {
	client redis.UniversalClient
	locks  *redislock.Client
	prefix string
}

var _ autocert.Cache = (*Cache)(nil)

// New returns a Cache whose keys in Redis begin with prefix. Machines that share a Cache use the
// same prefix. The caller closes the client. Set its option ContextTimeoutEnabled: without it a
// Redis that hangs delays every call by the client's own timeouts and retries.
func New(client redis.UniversalClient, prefix string) *Cache {
	return &Cache{client: client, locks: redislock.New(client), prefix: prefix}
}

// Get implements autocert.Cache.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	data, err := c.client.Get(ctx, c.prefix+key).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, autocert.ErrCacheMiss
	case err != nil:
		return nil, fmt.Errorf("rediscache: %w", err)
	}
	return data, nil
}

// Put implements autocert.Cache. Answers to challenges expire after an hour.
func (c *Cache) Put(ctx context.Context, key string, data []byte) error {
	var life time.Duration // 0: forever
	if strings.HasSuffix(key, "+token") || strings.HasSuffix(key, "+http-01") {
		life = tokenLife
	}
	if err := c.client.Set(ctx, c.prefix+key, data, life).Err(); err != nil {
		return fmt.Errorf("rediscache: %w", err)
	}
	return nil
}

// Delete implements autocert.Cache.
func (c *Cache) Delete(ctx context.Context, key string) error {
	if err := c.client.Del(ctx, c.prefix+key).Err(); err != nil {
		return fmt.Errorf("rediscache: %w", err)
	}
	return nil
}

// Lock waits until this machine alone has the lock of a name, or until ctx ends; without a deadline
// it waits 15 seconds. unlock releases the lock, and may be called more than once. The lock of a
// machine that has crashed expires after 15 seconds.
//
// The lock is not a guarantee: if Redis fails over, two machines may hold it and order twice.
func (c *Cache) Lock(ctx context.Context, name string) (unlock func(), err error) {
	lock, err := c.locks.Obtain(ctx, c.prefix+"lock:"+name, lease, &redislock.Options{RetryStrategy: redislock.LinearBackoff(retry)})
	if err != nil {
		return nil, fmt.Errorf("rediscache: lock of %s: %w", name, err)
	}
	// The holder continues while Redis is unreachable, and so does this goroutine; it ends with
	// unlock.
	held, release := context.WithCancel(context.WithoutCancel(ctx))
	var renewing sync.WaitGroup
	renewing.Go(func() { renew(held, lock) })
	return sync.OnceFunc(func() {
		release()
		renewing.Wait()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lease/3)
		defer cancel()
		lock.Release(ctx) // if it fails, the lease expires
	}), nil
}

// renew extends the lease of a lock until ctx ends, or until another machine holds the lock.
func renew(ctx context.Context, lock *redislock.Lock) {
	ticker := time.NewTicker(lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if errors.Is(lock.Refresh(ctx, lease, nil), redislock.ErrNotObtained) {
				return
			}
		}
	}
}
