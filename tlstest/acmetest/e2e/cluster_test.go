package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/certmanager/rediscache"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// redisServer is Debian's redis-server.
type redisServer struct {
	socket string
	kill   func()
}

// machine returns a client, for each machine another.
func (r redisServer) machine(t *testing.T) *redis.Client {
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: r.socket})
	t.Cleanup(func() { client.Close() })
	return client
}

// startRedis runs a server until kill, or until the end of the test.
func startRedis(t *testing.T) redisServer {
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
	require.NoError(t, server.Start())
	r := redisServer{socket: socket, kill: sync.OnceFunc(func() {
		server.Process.Kill()
		server.Wait()
	})}
	t.Cleanup(r.kill)
	client := r.machine(t)
	require.Eventually(t, func() bool { return client.Ping(t.Context()).Err() == nil }, time.Minute, 50*time.Millisecond)
	return r
}

// Three machines start at once: one order, and all serve its certificate. Any of them answers
// the challenge, and all serve the next certificate soon.
func TestMachinesShareRedis(t *testing.T) {
	needs.Long(t)
	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ca, server := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second}), startRedis(t)
			ca.Hang(true) // until all of them listen
			var cluster []*world
			var tlsAddrs, httpAddrs []string
			for range 3 {
				w := start(t, ca, &acme.Source{Domains: []string{name}, Background: true, Cache: rediscache.New(server.machine(t), "acme:")})
				w.serve(t)
				cluster = append(cluster, w)
				tlsAddrs = append(tlsAddrs, w.addr)
				httpAddrs = append(httpAddrs, w.serveHTTP(t, w.HTTPHandler(nil)))
			}
			orders := 1
			if kind == "http-01" {
				ca.TLSALPN01()
				ca.HTTP01(httpAddrs...)
				orders = 2 // one for each kind of challenge that is tried
			} else {
				ca.TLSALPN01(tlsAddrs...)
			}
			ca.Hang(false)
			var serials []string
			for _, w := range cluster {
				w.eventually(t, "a certificate", func() bool {
					leaf, err := w.dial(t.Context(), name)
					if err == nil {
						serials = append(serials, leaf.SerialNumber.String())
					}
					return err == nil
				})
			}
			assert.Equal(t, orders, ca.Orders())
			assert.Equal(t, 1, ca.Accounts())
			assert.Equal(t, []string{serials[0], serials[0], serials[0]}, serials)

			renewed := func(w *world) bool { return w.mustDial(t, name).SerialNumber.String() != serials[0] }
			cluster[0].eventually(t, "the renewal", func() bool { return renewed(cluster[0]) || renewed(cluster[1]) || renewed(cluster[2]) })
			began := time.Now()
			for _, w := range cluster {
				w.eventually(t, "the next certificate", func() bool { return renewed(w) })
			}
			t.Logf("all within %v", time.Since(began).Round(time.Millisecond))
			assert.Less(t, time.Since(began), 20*time.Second, "before the end of the old one")
			issued := 0
			for _, w := range cluster {
				issued += len(w.events.of(certmanager.Issued))
				assert.Empty(t, w.events.of(certmanager.OrderFailed))
			}
			assert.Equal(t, 2, issued, "one renewal")
			assert.LessOrEqual(t, ca.Orders(), 2*orders, "a machine that has not ordered yet tries the other kind of challenge first")
		})
	}
}

// Redis that is gone when certificates have to be renewed: they are, without the lock and in time.
func TestRedisGoesAway(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca, server := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second}), startRedis(t)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: server.socket, MaxRetries: -1, DialerRetries: 1})
	defer client.Close()
	w := start(t, ca, &acme.Source{Domains: []string{name}, RenewBefore: 15 * time.Second, Cache: rediscache.New(client, "acme:")})
	defer w.Close()
	w.serve(t)
	server.kill()
	stop := w.traffic(t)
	w.eventually(t, "the renewal", func() bool { return len(w.events.of(certmanager.Issued)) >= 2 })
	met := stop()
	assert.Empty(t, met.failures, "%s", w.events)
	assert.Zero(t, met.expired)
	assert.NotEmpty(t, w.events.of(certmanager.CacheFailed))
}

// Redis being away is no reason to be without a certificate.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: filepath.Join(t.TempDir(), "none"), MaxRetries: -1})
	defer client.Close()
	_, err := tryStart(t, ca, &acme.Source{Domains: []string{name}, Cache: rediscache.New(client, "acme:")})
	require.ErrorContains(t, err, "nothing is ordered that cannot be stored")
	w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: rediscache.New(client, "acme:"), Background: true})
	w.eventually(t, "the report", func() bool { return len(w.events.of(certmanager.CacheFailed)) > 0 })
	assert.Zero(t, ca.Orders())
}
