package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"
)

// brokenCache is a Cache that can be made to fail.
type brokenCache struct {
	autocert.Cache
	mu       sync.Mutex
	put, get error
	puts     int // that were refused
}

func (c *brokenCache) fail(get, put error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.get, c.put = get, put
}

func (c *brokenCache) Get(ctx context.Context, key string) ([]byte, error) {
	c.mu.Lock()
	err := c.get
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return c.Cache.Get(ctx, key)
}

func (c *brokenCache) Put(ctx context.Context, key string, data []byte) error {
	c.mu.Lock()
	err := c.put
	if err != nil {
		c.puts++
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.Cache.Put(ctx, key, data)
}

// entry is the path of the one file of a cache whose key begins with name and has nothing but the
// CA behind it.
func entry(t *testing.T, folder, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, name+"+127.0.0.1-????????"))
	require.NoError(t, err)
	require.Len(t, found, 1, "%s in %s", name, folder)
	return found[0]
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}
