package e2e

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/certmanager/rediscache"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// machineVariable makes this program one that shares Redis or a folder, see dyingMachine.
const machineVariable = "ERGOTLS_E2E_MACHINE"

// dyingMachine waits for a certificate until it is killed.
func dyingMachine(settings string) error {
	var s struct{ Directory, Roots, Socket, Folder, Listen string }
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.Roots))
	var cache autocert.Cache = autocert.DirCache(s.Folder)
	if s.Folder == "" {
		cache = rediscache.New(redis.NewClient(&redis.Options{Network: "unix", Addr: s.Socket}), "acme:")
	}
	_, err := certmanager.New(certmanager.Options{Source: &acme.Source{
		Domains: []string{name}, Directory: s.Directory, Roots: roots, Listen: s.Listen, Cache: cache,
	}})
	return err
}

// startDying runs dyingMachine until kill, in the middle of an order.
func startDying(t *testing.T, ca *acmetest.Server, socket, folder string) (kill func()) {
	t.Helper()
	ca.Hang(true)
	settings, err := json.Marshal(map[string]string{
		"Directory": ca.Directory(), "Roots": string(rootsPEM(ca)), "Socket": socket, "Folder": folder, "Listen": freeAddr(t),
	})
	require.NoError(t, err)
	dying := exec.Command(os.Args[0])
	dying.Env = append(os.Environ(), machineVariable+"="+string(settings))
	require.NoError(t, dying.Start())
	kill = sync.OnceFunc(func() {
		dying.Process.Kill()
		dying.Wait()
	})
	t.Cleanup(kill)
	return kill
}

// The lock of a machine that is killed in the middle of an order is free soon, and the next machine
// orders.
func TestMachineDiesWithTheLock(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca, server := acmetest.Start(t), startRedis(t)
	kill := startDying(t, ca, server.socket, "")
	client, w := server.machine(t), &world{events: &eventLog{}}
	w.eventually(t, "an order with the lock", func() bool {
		return ca.Requests() > 0 && len(client.Keys(t.Context(), "acme:lock:"+name+"+*").Val()) == 1
	})
	kill()
	killed := time.Now()
	ca.Hang(false)
	w = start(t, ca, &acme.Source{Domains: []string{name}, Cache: rediscache.New(client, "acme:")})
	t.Logf("a certificate %v after the end of the machine that held the lock", time.Since(killed).Round(time.Millisecond))
	w.serve(t)
	w.mustDial(t, name)
	assert.Equal(t, 1, ca.Orders())
	assert.Empty(t, w.events.of(certmanager.CacheFailed), "the lock was had, and not done without")
}

// A machine that has the folder of another takes what that has renewed, instead of ordering.
func TestTwoProcessesShareAFolder(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second})
	cache := autocert.DirCache(t.TempDir())
	first := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache, RenewBefore: 15 * time.Second})
	second := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache, RenewBefore: 5 * time.Second})
	assert.Equal(t, 1, ca.Orders())
	ca.TLSALPN01(first.addr)
	first.serve(t)
	second.serve(t)
	before := second.mustDial(t, name)
	second.eventually(t, "the renewal", func() bool { return !second.mustDial(t, name).Equal(before) })
	assert.Equal(t, 2, ca.Orders())
}

// Programs that start at once with one empty folder, whose lock is that of its file system, make
// one account and one order. The lock of a program that has ended is free.
func TestProgramsStartOnOneFolder(t *testing.T) {
	t.Parallel()
	ca, listen, cache := acmetest.Start(t), freeAddr(t), autocert.DirCache(filepath.Join(t.TempDir(), "acme"))
	ca.TLSALPN01(listen)
	errs := make(chan error)
	for range 3 {
		go func() {
			m, err := certmanager.New(certmanager.Options{Source: &acme.Source{
				Domains: []string{name}, Directory: ca.Directory(), Roots: ca.Roots(), Cache: cache, Listen: listen,
			}})
			if err == nil {
				err = m.Close()
			}
			errs <- err
		}()
	}
	for range 3 {
		require.NoError(t, <-errs)
	}
	assert.Equal(t, 1, ca.Orders())
	assert.Equal(t, 1, ca.Accounts())
	left, err := os.ReadDir(string(cache))
	require.NoError(t, err)
	assert.Len(t, left, 2, "%v", left)
}

// The lock of a folder ends with the program that has it, whatever ends that.
func TestProgramDiesWithTheLockOfAFolder(t *testing.T) {
	t.Parallel()
	ca, folder, w := acmetest.Start(t), t.TempDir(), &world{events: &eventLog{}}
	kill := startDying(t, ca, "", folder)
	w.eventually(t, "an order with the lock", func() bool {
		locks, err := filepath.Glob(filepath.Join(folder, name+"+*+lock"))
		return err == nil && len(locks) == 1 && ca.Requests() > 0
	})
	source := func(timeout time.Duration) *acme.Source {
		return &acme.Source{Domains: []string{name}, Cache: autocert.DirCache(folder), StartTimeout: timeout}
	}
	_, err := tryStart(t, ca, source(time.Second))
	require.ErrorContains(t, err, "StartTimeout")
	kill()
	ca.Hang(false)
	w = start(t, ca, source(0))
	assert.Equal(t, 1, ca.Orders())
	assert.Empty(t, w.events.of(certmanager.CacheFailed), "the lock was had, and not done without")
}
