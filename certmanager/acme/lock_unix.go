//go:build unix && !aix && !solaris

package acme

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockFile waits for a lock that one program at a time holds, and that ends with the program. If
// the lock is impossible, it does nothing.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	_ = os.MkdirAll(filepath.Dir(path), 0o700)
	for ; ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return func() {}, nil // the storage is tried next and returns the reason
		}
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil && isFile(file, path) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENOLCK) {
			return func() { os.Remove(path); file.Close() }, nil
		}
		file.Close()
	}
	return nil, fmt.Errorf("another program has the lock %s: %w", path, ctx.Err())
}

// isFile reports whether path still names the open file: the last holder of the lock may have
// removed it.
func isFile(file *os.File, path string) bool {
	open, err := file.Stat()
	named, err2 := os.Stat(path)
	return err == nil && err2 == nil && os.SameFile(open, named)
}
