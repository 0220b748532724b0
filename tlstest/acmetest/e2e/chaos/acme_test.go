//go:build linux

package chaos

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// acme gives the server a source that gets a certificate for publicName from a CA, beside its
// files, which are for localhost then.
func (w *world) acme(lifetime time.Duration) *acmetest.Server {
	w.t.Helper()
	ca := acmetest.StartWith(w.t, acmetest.Options{Lifetime: lifetime})
	ca.TLSALPN01(w.setup.Addr)
	w.setup.Directory, w.setup.Roots, w.setup.Cache = ca.Directory(), filepath.Join(w.t.TempDir(), "roots.pem"), w.t.TempDir()
	roots := w.ca.Pool()
	var file []byte
	for _, root := range ca.RootCertificates() {
		roots.AddCert(root)
		file = append(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})...)
	}
	require.NoError(w.t, os.WriteFile(w.setup.Roots, file, 0o600))
	w.name = "localhost"
	w.peer = w.peer.Clone()
	w.peer.ServerName = w.name
	w.public = w.peer.Clone()
	w.public.ServerName, w.public.RootCAs = publicName, roots
	return ca
}

// ordered is what the server says about publicName.
func ordered(r report) certmanager.OrderStatus {
	for _, s := range r.Status.ACME {
		if s.Name == publicName {
			return s
		}
	}
	return certmanager.OrderStatus{}
}

func serving(r report) bool { return ordered(r).Serving }

// visitPublic gives the certificate of publicName as a client gets it, verified.
func (w *world) visitPublic() (serial string, err error) {
	conn, err := w.dialAs(w.public)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), w.traffic.exchange(conn)
}

// The process is killed at every request that an order makes, and started again.
func TestKilledInOrder(t *testing.T) {
	w := newWorld(t, "SIGKILL in the middle of an ACME order")
	ca := w.acme(time.Hour)
	ca.Slow(20 * time.Millisecond)
	w.rotate()
	every := 1
	if *faults == "short" {
		every = 3
	}
	kills, began := 0, time.Time{}
	for n := every; ; n += every {
		before := ca.Requests()
		began = time.Now()
		w.process = w.launch()
		require.Empty(t, w.next().Err)
		require.NoError(t, w.traffic.visit(w), "what is in files is served at once")
		for ca.Requests() < before+n && !serving(w.ask("status")) {
			time.Sleep(time.Millisecond)
		}
		if serving(w.ask("status")) {
			break
		}
		w.kill()
		kills++
	}
	assert.Greater(t, kills, 2)
	_, err := w.visitPublic()
	require.NoError(t, err)
	w.arrived(time.Since(began), 10*time.Second)
	w.row.visible = "issued, Status.ACME; the next start goes on with the same account"
	assert.Equal(t, 1, ca.Accounts(), "each start goes on with the same account")
	assert.Empty(t, w.ask("status").kind(certmanager.CacheFailed), "nothing torn is in the cache")
	w.await("that it is stored", 10*time.Second, func(r report) bool { return !ordered(r).Unsaved })
	assert.Empty(t, w.end().Err)

	orders := ca.Orders()
	w.process = w.launch()
	require.Empty(t, w.next().Err)
	_, err = w.visitPublic()
	require.NoError(t, err, "at once")
	assert.Equal(t, orders, ca.Orders())
	assert.Empty(t, w.end().Err)
	w.row.meanwhile = w.traffic.String() + sentence(", killed %d times", kills)
}

// The process is killed at every step of a rotation, and started again on what is there then.
func TestKilledInRotation(t *testing.T) {
	w := newWorld(t, "SIGKILL in the middle of a rotation")
	replacements := tlstest.Replacements
	if *faults == "short" {
		replacements = []tlstest.Replacement{{Replace: tlstest.RenameOver}, {Replace: tlstest.TruncateAndWrite}, {Replace: tlstest.KubernetesSwap}}
	}
	w.dir = filepath.Join(w.dir, "tls")
	w.setup.Dir = w.dir
	require.NoError(t, os.Mkdir(w.dir, 0o700))
	kills, refusals, longest := 0, 0, time.Duration(0)
	for _, replacement := range replacements {
		require.NoError(t, replacement.Replace(w.dir, w.contents(w.issue()), nil))
		w.process = w.launch()
		require.Empty(t, w.next().Err)
		next := w.issue()
		restart := func() {
			w.kill()
			kills++
			w.process = w.launch()
			if r := w.next(); r.Err != "" {
				refusals++ // nothing is better than something torn
				return
			}
			require.NoError(t, w.traffic.visit(w))
		}
		require.NoError(t, replacement.Replace(w.dir, w.contents(next), restart))
		began := time.Now()
		restart()
		require.NoError(t, w.traffic.visit(w))
		w.traffic.awaitLeaf(t, next.Leaf, soon)
		longest = max(longest, time.Since(began))
		assert.Empty(t, w.end().Err)
	}
	assert.Positive(t, refusals, "there was something torn to refuse")
	w.arrived(longest, soon)
	w.row.meanwhile = w.traffic.String() + sentence(", killed %d times, refused to start on %d torn sets", kills, refusals)
	w.row.visible = "New's error, exit code"
}

// The cache cannot be written: nothing is ordered before it can be.
func TestCacheDisk(t *testing.T) {
	for name, fault := range map[string]struct {
		begin, end func(w *world, cache string)
		errno      syscall.Errno
	}{
		"full": {
			func(w *world, cache string) { fill(w.t, filepath.Join(cache, "filler")) },
			func(w *world, cache string) { require.NoError(w.t, os.Remove(filepath.Join(cache, "filler"))) },
			syscall.ENOSPC,
		},
		"read-only": {
			func(w *world, cache string) { w.mount("-o", "remount,ro", cache) },
			func(w *world, cache string) { w.mount("-o", "remount,rw", cache) },
			syscall.EROFS,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "disk "+name+" under the ACME cache")
			ca := w.acme(time.Hour)
			w.mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", w.setup.Cache)
			fault.begin(w, w.setup.Cache)
			w.begin()
			w.visible("cache-failed, order-failed", func(r report) bool { return r.happened(certmanager.CacheFailed, fault.errno.Error()) })
			assert.Zero(t, ca.Orders(), "what cannot be stored is not ordered")
			fault.end(w, w.setup.Cache)
			began := time.Now()
			w.await("the certificate", 40*time.Second, func(r report) bool { return serving(r) && !ordered(r).Unsaved })
			w.arrived(time.Since(began), 30*time.Second)
			_, err := w.visitPublic()
			require.NoError(t, err)
			w.more = 6 // the connections to the CA that are kept for the next order
			w.finish()

			orders := ca.Orders()
			w.process = w.launch()
			require.Empty(t, w.next().Err)
			_, err = w.visitPublic()
			require.NoError(t, err)
			assert.Equal(t, orders, ca.Orders(), "what was stored is whole")
			assert.Empty(t, w.end().Err)
		})
	}
}
