//go:build !race

// The race detector makes lists of real sizes twenty times as slow. make test runs this without it.

package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// largeCRL is a list, DER, with so many entries of 20 bytes besides those given.
func largeCRL(t *testing.T, ca *tlstest.CA, entries int, revoked ...*x509.Certificate) []byte {
	t.Helper()
	first := new(big.Int).Lsh(big.NewInt(1), 155)
	for i := range entries {
		revoked = append(revoked, &x509.Certificate{SerialNumber: new(big.Int).Add(first, big.NewInt(int64(i))), RawIssuer: ca.Certificate().RawSubject})
	}
	block, _ := pem.Decode(ca.CRL(t, revoked...))
	require.NotNil(t, block)
	return block.Bytes
}

// Lists of real sizes, 200,000 entries and more than 16 MiB, are read, and once: neither a change
// of something else nor a poll costs time in proportion to them.
func TestAllocLargeRevocationList(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	good, bad := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	bundle := write(t, dir, "ca.crt", ca.PEM())
	for name, entries := range map[string]int{"200,000 entries": 200_000, "17 MB": 450_000} {
		t.Run(name, func(t *testing.T) {
			path := write(t, dir, "crl", largeCRL(t, ca, entries, bad.Leaf))
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, entries > 200_000, info.Size() > 16<<20)
			began := time.Now()
			m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key, ClientCAs: bundle, CRLs: path}})
			require.NoError(t, err)
			defer m.Close()
			first := time.Since(began)
			client := func(pair *tlstest.Pair) *tls.Config {
				config := ca.ClientConfig(t, "localhost")
				config.Certificates = []tls.Certificate{pair.Certificate()}
				return config
			}
			require.ErrorIs(t, connect(t, m.ServerTLS(), client(bad)).serverErr, certmanager.ErrRevoked)
			connect(t, m.ServerTLS(), client(good)).ok(t)

			before := certmanager.XLists(m)
			for what, change := range map[string]func(){
				"a setter": func() { m.SetServerName("example.test") },
				"another certificate": func() {
					ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
					require.NoError(t, m.Reload(t.Context()))
				},
				"another CA": func() {
					write(t, dir, "ca.crt", append(ca.PEM(), tlstest.NewCA(t).PEM()...))
					require.NoError(t, m.Reload(t.Context()))
				},
				"a poll": func() { require.NoError(t, m.Reload(t.Context())) },
			} {
				var memory runtime.MemStats
				runtime.ReadMemStats(&memory)
				allocated := memory.TotalAlloc
				began := time.Now()
				change()
				took := time.Since(began)
				runtime.ReadMemStats(&memory)
				t.Logf("the first load %v, %s %v", first, what, took)
				assert.Less(t, memory.TotalAlloc-allocated, uint64(info.Size()/2), what)
				after := certmanager.XLists(m)
				require.Len(t, after, 1)
				assert.Same(t, before[0], after[0], what)
			}
			require.ErrorIs(t, connect(t, m.ServerTLS(), client(bad)).serverErr, certmanager.ErrRevoked)
		})
	}
}
