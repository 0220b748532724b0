package prometheus_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/crlfetch"
	"github.com/ergotls/ergotls/metrics/prometheus"
	"github.com/ergotls/ergotls/tlstest"
)

// A list that is fetched has its dates, entries and whether the last request failed.
func TestLists(t *testing.T) {
	ca := tlstest.NewCA(t)
	bad := ca.Issue(t, tlstest.Leaf{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a.crl" {
			http.Error(w, "no list", http.StatusNotFound)
			return
		}
		w.Write(ca.CRL(t, bad.Leaf))
	}))
	defer web.Close()
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, ca.PEM(), 0o600))
	source := &crlfetch.Source{
		Source: certmanager.Files{ClientCAs: bundle}, URLs: []string{web.URL + "/a.crl", web.URL + "/b.crl"},
	}
	m, err := certmanager.New(certmanager.Options{Source: source})
	require.NoError(t, err)
	defer m.Close()

	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	watch.AddLists("l", source)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP ergotls_fetched_crl_entries Certificates on the revocation list from an address.
# TYPE ergotls_fetched_crl_entries gauge
ergotls_fetched_crl_entries{lists="l",url="`+web.URL+`/a.crl"} 1
# HELP ergotls_fetched_crl_failed 1 if the last request returned no usable list, or the list could not be written to Dir.
# TYPE ergotls_fetched_crl_failed gauge
ergotls_fetched_crl_failed{lists="l",url="`+web.URL+`/a.crl"} 0
ergotls_fetched_crl_failed{lists="l",url="`+web.URL+`/b.crl"} 1
`), "ergotls_fetched_crl_entries", "ergotls_fetched_crl_failed"))
	count := func(name string) int {
		n, err := testutil.GatherAndCount(registry, name)
		require.NoError(t, err)
		return n
	}
	assert.Equal(t, 2, count("ergotls_fetched_crl_asked_timestamp_seconds"))
	assert.Equal(t, 1, count("ergotls_fetched_crl_this_update_timestamp_seconds"))
	assert.Equal(t, 1, count("ergotls_fetched_crl_next_update_timestamp_seconds"))
	watch.RemoveLists("l")
	assert.Zero(t, count("ergotls_fetched_crl_failed"))
}

// Addresses that begin alike, and are too long for a label, are one series: two would fail the
// whole scrape.
func TestListsOfLongAddresses(t *testing.T) {
	ca := tlstest.NewCA(t)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(bundle, ca.PEM(), 0o600))
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	long := web.URL + "/" + strings.Repeat("x", 200)
	source := &crlfetch.Source{Source: certmanager.Files{ClientCAs: bundle}, URLs: []string{long + "/a.crl", long + "/b.crl"}}
	m, err := certmanager.New(certmanager.Options{Source: source})
	require.NoError(t, err)
	defer m.Close()
	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	watch.AddLists("l", source)
	n, err := testutil.GatherAndCount(registry, "ergotls_fetched_crl_failed")
	require.NoError(t, err)
	assert.Equal(t, 1, n)
}
