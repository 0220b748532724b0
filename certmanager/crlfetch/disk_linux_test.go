package crlfetch_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where the disk is full, a new list is used and the failure told. The file of the last good one is
// whole, nothing else is left in the folder, and the list is written when there is room.
func TestDiskFull(t *testing.T) {
	w := newWorld(t)
	require.NoError(t, os.Mkdir(w.dir, 0o700))
	if err := syscall.Mount("tmpfs", w.dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("mounting a file system: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(w.dir, syscall.MNT_DETACH) })
	w.web.put(w.list(1, w.alice))
	require.NoError(t, w.start(w.source()))
	require.False(t, w.in(w.alice))
	files, err := filepath.Glob(filepath.Join(w.dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	before, err := os.ReadFile(files[0])
	require.NoError(t, err)
	padding, err := asn1.Marshal(bytes.Repeat([]byte{1}, 32<<10))
	require.NoError(t, err)
	w.web.put(w.strange(2, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: padding}))
	w.eventually(func() bool { return w.told("it is in use but could not be written to Dir") }, "it is told")
	assert.True(t, w.told("no space left on device"))
	w.eventually(func() bool { return w.in(w.alice) }, "the new list is in service")
	after, err := os.ReadFile(files[0])
	require.NoError(t, err)
	assert.Equal(t, before, after)
	require.NoError(t, syscall.Mount("tmpfs", w.dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"))
	w.eventually(func() bool {
		data, err := os.ReadFile(files[0])
		return err == nil && len(data) > 32<<10
	}, "when there is room it is written")
	require.NoError(t, w.Close())
	entries, err := os.ReadDir(w.dir)
	require.NoError(t, err)
	assert.Len(t, entries, 1)
	require.NoError(t, w.start(w.source()))
}
