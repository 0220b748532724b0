package e2e

import (
	"strings"
	"testing"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/metrics/prometheus"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// What a CA has issued is in the metrics.
func TestIssuedIsCounted(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{HostPolicy: autocert.HostWhitelist(name)})
	w.serve(t)
	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	watch.AddManager("acme", w.Manager)
	w.mustDial(t, name)
	w.eventually(t, "it is counted", func() bool {
		return testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP ergotls_acme_orders_total Orders of certificates by result, issued or failed, since AddManager.
# TYPE ergotls_acme_orders_total counter
ergotls_acme_orders_total{manager="acme",result="failed"} 0
ergotls_acme_orders_total{manager="acme",result="issued"} 1
# HELP ergotls_acme_names Names of ACME sources, by whether a certificate is in service.
# TYPE ergotls_acme_names gauge
ergotls_acme_names{manager="acme",serving="false"} 0
ergotls_acme_names{manager="acme",serving="true"} 1
# HELP ergotls_acme_unsaved Names whose certificate is served from memory because it could not be stored.
# TYPE ergotls_acme_unsaved gauge
ergotls_acme_unsaved{manager="acme"} 0
`), "ergotls_acme_orders_total", "ergotls_acme_names", "ergotls_acme_unsaved") == nil
	})
}
