package prometheus_test

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/metrics/prometheus"
	"github.com/ergotls/ergotls/tlstest"
)

// The horizon is the end of what ends first, whatever that is.
func TestHorizon(t *testing.T) {
	first, later := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(48*time.Hour)
	for _, what := range []string{"leaf", "intermediate", "client CA", "root CA", "revocation list"} {
		t.Run(what, func(t *testing.T) {
			end := func(of string) time.Time {
				if of == what {
					return first
				}
				return later
			}
			until := func(of string) func(*x509.Certificate) {
				return func(c *x509.Certificate) { c.NotAfter = end(of) }
			}
			dir := t.TempDir()
			write := func(name string, text []byte) string {
				path := filepath.Join(dir, name)
				require.NoError(t, tlstest.WriteFile(path, text, 0o600))
				return path
			}
			roots, clients := tlstest.NewCA(t, until("root CA")), tlstest.NewCA(t, until("client CA"))
			intermediate := roots.Intermediate(t, until("intermediate"))
			crl, err := clients.GenerateCRL(tlstest.CRL{NextUpdate: end("revocation list")})
			require.NoError(t, err)
			files := certmanager.Files{ClientCAs: write("clients.crt", clients.PEM()), RootCAs: write("roots.crt", roots.PEM()), CRLs: write("crl.pem", crl)}
			files.Cert, files.Key = intermediate.Issue(t, tlstest.Leaf{NotAfter: end("leaf")}).Files(t, dir, "server")
			m, err := certmanager.New(certmanager.Options{Source: files, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			defer m.Close()
			watch, registry := prometheus.New(), client.NewPedanticRegistry()
			require.NoError(t, registry.Register(watch))
			watch.AddManager("m", m)
			assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP ergotls_manager_expiry_horizon_timestamp_seconds The earliest expiry of the certificates, their issuers, CAs and revocation lists in service.
# TYPE ergotls_manager_expiry_horizon_timestamp_seconds gauge
ergotls_manager_expiry_horizon_timestamp_seconds{manager="m"} %d
`, first.Unix())), "ergotls_manager_expiry_horizon_timestamp_seconds"))
			count, err := testutil.GatherAndCount(registry, "ergotls_certificate_not_after_timestamp_seconds")
			require.NoError(t, err)
			assert.Equal(t, 4, count, "each certificate has its own end too, that of the intermediate too")
		})
	}
}
