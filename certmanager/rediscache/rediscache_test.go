package rediscache

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/acme/autocert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startRedis runs Debian's redis-server on a socket of its own until the end of the test.
// Where it is not installed the test is skipped, and in CI fails.
func startRedis(t testing.TB) *redis.Client {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("redis-server is not installed, and CI skips nothing: add it to .ci/run")
	}
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	folder, err := os.MkdirTemp("", "redis") // a socket's path is short
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	socket := filepath.Join(folder, "s")
	server := exec.Command(program, "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", "--appendonly", "no")
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	t.Cleanup(func() { client.Close() })
	require.Eventually(t, func() bool { return client.Ping(t.Context()).Err() == nil }, 20*time.Second, 10*time.Millisecond)
	return client
}

func TestCache(t *testing.T) {
	client := startRedis(t)
	c := New(client, "acme:")
	_, err := c.Get(t.Context(), "a.example.test")
	require.ErrorIs(t, err, autocert.ErrCacheMiss)
	require.NoError(t, c.Delete(t.Context(), "a.example.test"), "of nothing")

	for _, data := range []string{"one", "two", string([]byte{0, 255, '\r', '\n'})} {
		require.NoError(t, c.Put(t.Context(), "a.example.test", []byte(data)))
		got, err := c.Get(t.Context(), "a.example.test")
		require.NoError(t, err)
		assert.Equal(t, data, string(got))
	}
	assert.Equal(t, "two", func() string {
		require.NoError(t, New(client, "other:").Put(t.Context(), "a.example.test", []byte("two")))
		got, err := New(client, "other:").Get(t.Context(), "a.example.test")
		require.NoError(t, err)
		return string(got)
	}(), "prefixes are apart")
	ttl, err := client.TTL(t.Context(), "acme:a.example.test").Result()
	require.NoError(t, err)
	assert.Negative(t, ttl, "certificates stay")

	require.NoError(t, c.Delete(t.Context(), "a.example.test"))
	_, err = c.Get(t.Context(), "a.example.test")
	require.ErrorIs(t, err, autocert.ErrCacheMiss)

	for _, key := range []string{"a.example.test+token", "abc+http-01"} {
		require.NoError(t, c.Put(t.Context(), key, []byte("answer")))
		ttl, err := client.TTL(t.Context(), "acme:"+key).Result()
		require.NoError(t, err)
		assert.Greater(t, ttl, 50*time.Minute)
	}
}

func TestRedisIsGone(t *testing.T) {
	c := New(redis.NewClient(&redis.Options{Network: "unix", Addr: filepath.Join(t.TempDir(), "none"), MaxRetries: -1}), "")
	defer c.client.Close()
	_, err := c.Get(t.Context(), "a")
	require.ErrorContains(t, err, "rediscache:")
	assert.NotErrorIs(t, err, autocert.ErrCacheMiss)
	require.Error(t, c.Put(t.Context(), "a", nil))
	require.Error(t, c.Delete(t.Context(), "a"))
	_, err = c.Lock(t.Context(), "a")
	require.ErrorContains(t, err, "lock of a")
}

// Of many that want the lock one has it at a time.
func TestLockExcludes(t *testing.T) {
	client := startRedis(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var inside, turns atomic.Int32
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			unlock, err := New(client, "acme:").Lock(ctx, "a.example.test")
			if err == nil {
				if inside.Add(1) != 1 {
					err = assert.AnError
				}
				for range 20 { // the others try meanwhile
					err = cmp.Or(err, client.Ping(ctx).Err())
				}
				turns.Add(1)
				inside.Add(-1)
				unlock()
				unlock()
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
	assert.EqualValues(t, cap(errs), turns.Load())
	assert.Zero(t, client.Exists(t.Context(), "acme:lock:a.example.test").Val())
}

func TestLockEndsWithItsContext(t *testing.T) {
	c := New(startRedis(t), "acme:")
	unlock, err := c.Lock(t.Context(), "a")
	require.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = c.Lock(ctx, "a")
	require.Error(t, err)
	unlockOther, err := c.Lock(t.Context(), "b")
	require.NoError(t, err, "another name is free")
	unlockOther()
}

// A lock is held for longer than its lease, also after the context of Lock has ended.
func TestLockIsRenewed(t *testing.T) {
	client := startRedis(t)
	ctx, cancel := context.WithCancel(t.Context())
	unlock, err := New(client, "acme:").Lock(ctx, "a")
	require.NoError(t, err)
	defer unlock()
	cancel()
	require.NoError(t, client.PExpire(t.Context(), "acme:lock:a", lease/2).Err())
	require.Eventually(t, func() bool {
		return client.PTTL(t.Context(), "acme:lock:a").Val() > lease/2
	}, lease, 50*time.Millisecond, "the lease is extended")
}

// The lock of a machine that is gone is free when its lease has ended.
func TestLockOfAMachineThatIsGone(t *testing.T) {
	client := startRedis(t)
	gone := redis.NewClient(&redis.Options{Network: "unix", Addr: client.Options().Addr})
	unlock, err := New(gone, "acme:").Lock(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	defer unlock()
	left := client.PTTL(t.Context(), "acme:lock:a").Val()
	assert.Greater(t, left, time.Duration(0))
	assert.LessOrEqual(t, left, lease)
	require.NoError(t, client.PExpire(t.Context(), "acme:lock:a", time.Second).Err()) // so that the test need not wait for all of it
	ctx, cancel := context.WithTimeout(t.Context(), lease)
	defer cancel()
	unlockOther, err := New(client, "acme:").Lock(ctx, "a")
	require.NoError(t, err)
	unlockOther()
}

// What is another's by now is not given back.
func TestLockThatWasLost(t *testing.T) {
	client := startRedis(t)
	unlock, err := New(client, "acme:").Lock(t.Context(), "a")
	require.NoError(t, err)
	require.NoError(t, client.Del(t.Context(), "acme:lock:a").Err()) // the lease has ended
	unlockOther, err := New(client, "acme:").Lock(t.Context(), "a")
	require.NoError(t, err)
	defer unlockOther()
	unlock()
	assert.EqualValues(t, 1, client.Exists(t.Context(), "acme:lock:a").Val())
}
