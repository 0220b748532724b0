package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/rediscache"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// startRedis runs Debian's redis-server until the end of the test, and returns a client for
// each machine.
func startRedis(t *testing.T) (machine func() *redis.Client) {
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
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
	})
	machine = func() *redis.Client {
		client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
		t.Cleanup(func() { client.Close() })
		return client
	}
	require.Eventually(t, func() bool { return machine().Ping(t.Context()).Err() == nil }, 20*time.Second, 50*time.Millisecond)
	return machine
}

// Three machines start at once: one order, and all serve its certificate. Any of them answers
// the challenge, and all serve the next certificate soon.
func TestMachinesShareRedis(t *testing.T) {
	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ca, machine := short(t), startRedis(t)
			var cluster []*world
			var tlsAddrs, httpAddrs []string
			for range 3 {
				w := start(t, ca, &certmanager.ACME{Domains: []string{name}, Background: true, Cache: rediscache.New(machine(), "acme:")})
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
			assert.Less(t, time.Since(began), 10*time.Second)
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

// Redis being away is no reason to be without a certificate.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: filepath.Join(t.TempDir(), "none"), MaxRetries: -1})
	defer client.Close()
	w := start(t, ca, &certmanager.ACME{Domains: []string{name}, Cache: rediscache.New(client, "acme:")})
	w.serve(t)
	w.mustDial(t, name)
	assert.NotEmpty(t, w.events.of(certmanager.CacheFailed))
	assert.Equal(t, 1, ca.Orders())
}

// A machine that has the folder of another takes what that has renewed, instead of ordering.
func TestTwoProcessesShareAFolder(t *testing.T) {
	t.Parallel()
	ca := short(t)
	cache := autocert.DirCache(t.TempDir())
	first := start(t, ca, &certmanager.ACME{Domains: []string{name}, Cache: cache})
	second := start(t, ca, &certmanager.ACME{Domains: []string{name}, Cache: cache, RenewBefore: 4 * time.Second})
	assert.Equal(t, 1, ca.Orders())
	ca.TLSALPN01(first.addr)
	first.serve(t)
	second.serve(t)
	before := second.mustDial(t, name)
	second.eventually(t, "the renewal", func() bool { return !second.mustDial(t, name).Equal(before) })
	assert.Equal(t, 2, ca.Orders())
}
