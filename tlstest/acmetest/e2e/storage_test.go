package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// What cannot be stored is served from memory, and stored when it can be.
func TestStorageFails(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 30 * time.Second})
	folder := t.TempDir()
	cache := &brokenCache{Cache: autocert.DirCache(folder)}
	w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache})
	w.serve(t)
	file := entry(t, folder, name)
	stored := readFile(t, file)
	first := w.mustDial(t, name)
	cache.fail(nil, syscall.ENOSPC)
	w.eventually(t, "the renewal", func() bool { return !w.mustDial(t, name).Equal(first) })
	assert.Equal(t, 2, ca.Orders())
	w.eventually(t, "the report", func() bool { return len(w.events.of(certmanager.CacheFailed)) > 0 })
	assert.Contains(t, w.events.of(certmanager.CacheFailed)[0], "no space left")
	cache.fail(nil, nil)
	w.eventually(t, "the certificate in the cache", func() bool {
		return readFile(t, file) != stored
	})
	assert.Len(t, w.events.of(certmanager.Issued), 2, "the one that could not be stored, and not the next")
	assert.Empty(t, w.events.of(certmanager.OrderFailed))
}

// Nothing is ordered that could not be stored: it would be ordered again at each start.
func TestStorageIsTried(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	broken := &brokenCache{Cache: autocert.DirCache(t.TempDir())}
	for what, fault := range map[string]struct {
		cache    autocert.Cache
		get, put error
	}{
		file:                 {autocert.DirCache(filepath.Join(file, "folder")), nil, nil},
		"no space left":      {broken, nil, syscall.ENOSPC},
		"input/output error": {broken, syscall.EIO, nil},
	} {
		broken.fail(fault.get, fault.put)
		for _, source := range []*acme.Source{{Domains: []string{name}}, {HostPolicy: autocert.HostWhitelist(name)}} {
			source.Cache = fault.cache
			_, err := tryStart(t, ca, source)
			require.ErrorContains(t, err, what)
		}
	}
	assert.Zero(t, ca.Orders())
	assert.Zero(t, ca.Accounts())

	// In the background the order waits for the storage.
	broken.fail(nil, syscall.ENOSPC)
	w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: broken, Background: true})
	w.serve(t)
	assert.Contains(t, w.events.of(certmanager.CacheFailed)[0], "no space left")
	w.eventually(t, "an attempt", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 0 })
	assert.Zero(t, ca.Orders())
	broken.fail(nil, nil)
	w.eventually(t, "the certificate", func() bool { return w.Status().ACME[0].Serving })
	assert.Equal(t, 1, ca.Orders())
	require.NoError(t, w.Close())

	// With all there is to serve in the cache, a program starts without being able to write to it.
	broken.fail(nil, syscall.EROFS)
	again := start(t, ca, &acme.Source{Domains: []string{name}, Cache: broken})
	again.serve(t)
	again.mustDial(t, name)
	assert.Equal(t, 1, ca.Orders())
}

// An entry that makes no sense is set aside, reported, and ordered anew.
func TestCorruptCache(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	folder := t.TempDir()
	cache := autocert.DirCache(folder)
	require.NoError(t, start(t, ca, &acme.Source{Domains: []string{name, other}, Cache: cache}).Close())
	file, account := entry(t, folder, name), entry(t, folder, "acme_account+key")
	whole := readFile(t, file)
	for what, contents := range map[string]string{
		"empty":            "",
		"not PEM":          "nonsense",
		"cut off":          string(whole[:len(whole)-100]),
		"a key only":       string(whole[:strings.Index(string(whole), "-----BEGIN CERT")]),
		"another's":        readFile(t, entry(t, folder, other)),
		"a wrong key":      swapKey(t, string(whole), readFile(t, entry(t, folder, other))),
		"the account, too": "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n",
	} {
		require.NoError(t, os.WriteFile(file, []byte(contents), 0o600))
		if what == "the account, too" {
			require.NoError(t, os.WriteFile(account, []byte(contents), 0o600))
		}
		before := ca.Orders(name)
		w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache})
		assert.Equal(t, before+1, ca.Orders(name), what)
		assert.NotEmpty(t, w.events.of(certmanager.CacheFailed), what)
		assert.Equal(t, contents, readFile(t, file+"+unreadable"), what)
		require.NoError(t, w.Close())
		assert.NotContains(t, w.events.String(), "PRIVATE KEY")
		if what == "the account, too" {
			assert.True(t, exists(account+"+unreadable"))
			assert.Equal(t, 2, ca.Accounts())
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// swapKey returns the certificates of one entry with the key of another.
func swapKey(t *testing.T, certs, key string) string {
	t.Helper()
	const mark = "-----BEGIN CERT"
	i, j := strings.Index(key, mark), strings.Index(certs, mark)
	require.True(t, i > 0 && j > 0, errors.New("not two cache entries"))
	return key[:i] + certs[j:]
}
