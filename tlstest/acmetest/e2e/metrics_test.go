package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/metrics/prometheus"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// One of the Domains whose certificate has expired is in the metrics as not served, where the
// series of the certificate ends. A name that clients ask for and that is not issued is not.
func TestExpiredIsNotServed(t *testing.T) {
	needs.Long(t)
	t.Parallel()
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 5 * time.Second})
	w := start(t, ca, &acme.Source{Domains: []string{name}, HostPolicy: autocert.HostWhitelist(other)})
	w.serve(t)
	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	watch.AddManager("acme", w.Manager)
	serving := func(n int) bool {
		return testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP ergotls_acme_serving 1 while a certificate is in service for one of the Domains of an ACME source, else 0.
# TYPE ergotls_acme_serving gauge
ergotls_acme_serving{manager="acme",name="www.example.test"} %d
`, n)), "ergotls_acme_serving") == nil
	}
	w.eventually(t, "it is served", func() bool { return serving(1) })
	ca.FailValidation(func(string) bool { return true })
	w.dial(t.Context(), other, unverified)
	w.eventually(t, "it is not served", func() bool { return serving(0) })
	w.eventually(t, "the end of the series", func() bool {
		n, err := testutil.GatherAndCount(registry, "ergotls_certificate_not_after_timestamp_seconds")
		return err == nil && n == 0
	})
}

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
