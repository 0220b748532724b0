package prometheus_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/echotest"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/metrics/prometheus"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
}

// busy is a server on which everything has happened once, and what watches it.
func busy(t *testing.T) (*echotest.Server, *prometheus.Collector, *client.Registry) {
	t.Helper()
	s := echotest.Start(t)
	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	watch.AddManager("main", s.Manager)
	watch.AddServer("echo", s.Meta)
	_, err := s.Dial(t, s.CA, tlstest.Leaf{CommonName: "alice"})
	require.NoError(t, err)
	gone, err := s.Dial(t, s.CA, tlstest.Leaf{CommonName: "bob"})
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	_, err = s.Dial(t, tlstest.NewCA(t), tlstest.Leaf{CommonName: "mallory"})
	require.Error(t, err)
	s.Rotate(t)
	s.Break(t)
	require.Eventually(t, func() bool {
		stats := meta.Stats(s.Meta)
		return stats.Refused["certificate"] == 1 && stats.Ended["closed by peer"] == 1
	}, 30*time.Second, 10*time.Millisecond)
	return s, watch, registry
}

// byReason gives the lines of a counter of the server: 1 for what happened, 0 for what did not.
func byReason(metric string, reasons []string, happened string) (lines string) {
	for _, reason := range reasons {
		n := 0
		if reason == happened {
			n = 1
		}
		lines += fmt.Sprintf("%s{reason=%q,server=\"echo\"} %d\n", metric, reason, n)
	}
	return lines
}

// What Prometheus gets is what happened, and its own linter has nothing to say.
func TestCollector(t *testing.T) {
	s, _, registry := busy(t)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	assert.Empty(t, problems)

	stats, status := meta.Stats(s.Meta), s.Manager.Status()
	assert.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(fmt.Sprintf(`
# HELP ergotls_server_connections Open connections that were announced to an actor.
# TYPE ergotls_server_connections gauge
ergotls_server_connections{server="echo"} 1
# HELP ergotls_server_connection_slots The largest number of connections, established or not (MaxConnections); 0 means no limit.
# TYPE ergotls_server_connection_slots gauge
ergotls_server_connection_slots{server="echo"} 100
# HELP ergotls_server_suspended 1 while the server is suspended and accepts no connection.
# TYPE ergotls_server_suspended gauge
ergotls_server_suspended{server="echo"} 0
# HELP ergotls_server_connections_accepted_total Accepted connections, including those refused later.
# TYPE ergotls_server_connections_accepted_total counter
ergotls_server_connections_accepted_total{server="echo"} 3
# HELP ergotls_server_connections_refused_total Connections that ended before they were announced to an actor, by reason.
# TYPE ergotls_server_connections_refused_total counter
%s# HELP ergotls_server_connections_ended_total Ended connections that were announced to an actor, by reason.
# TYPE ergotls_server_connections_ended_total counter
%s# HELP ergotls_server_received_bytes_total Bytes received, without the overhead of TLS.
# TYPE ergotls_server_received_bytes_total counter
ergotls_server_received_bytes_total{server="echo"} 10
# HELP ergotls_server_sent_messages_total Messages from actors.
# TYPE ergotls_server_sent_messages_total counter
ergotls_server_sent_messages_total{server="echo"} 2
# HELP ergotls_manager_generation The number of the set in service, counted from 1.
# TYPE ergotls_manager_generation gauge
ergotls_manager_generation{manager="main"} 2
# HELP ergotls_manager_reloads_total Sets put in service (result loaded) and rejected candidates (rejected).
# TYPE ergotls_manager_reloads_total counter
ergotls_manager_reloads_total{manager="main",result="loaded"} 2
ergotls_manager_reloads_total{manager="main",result="rejected"} %d
# HELP ergotls_manager_drift 1 while the current contents of the source are rejected and an earlier set is in service.
# TYPE ergotls_manager_drift gauge
ergotls_manager_drift{manager="main"} 1
# HELP ergotls_manager_polling 1 while file events are missing or lost, so that changes are found only by polling.
# TYPE ergotls_manager_polling gauge
ergotls_manager_polling{manager="main"} 0
# HELP ergotls_manager_clock_steps_total How often the clock was set, or the machine slept.
# TYPE ergotls_manager_clock_steps_total counter
ergotls_manager_clock_steps_total{manager="main"} 0
# HELP ergotls_certificate_not_after_timestamp_seconds The expiry of a certificate in service; the earliest of several with one name.
# TYPE ergotls_certificate_not_after_timestamp_seconds gauge
ergotls_certificate_not_after_timestamp_seconds{kind="client_ca",manager="main",name=%q} %d
ergotls_certificate_not_after_timestamp_seconds{kind="client_ca",manager="main",name=%q} %d
ergotls_certificate_not_after_timestamp_seconds{kind="server",manager="main",name="localhost"} %d
# HELP ergotls_manager_expiry_horizon_timestamp_seconds The earliest expiry of the certificates, their issuers, CAs and revocation lists in service.
# TYPE ergotls_manager_expiry_horizon_timestamp_seconds gauge
ergotls_manager_expiry_horizon_timestamp_seconds{manager="main"} %d
`, byReason("ergotls_server_connections_refused_total", meta.RefusedReasons[:], "certificate"),
		byReason("ergotls_server_connections_ended_total", []string{
			"closed by peer", "truncated: TLS stream ended without close_notify", "connection reset", "idle", "TLS handshake failed", "refused by peer",
			"TLS protocol violation", "slow consumer", "frame too large", "framing", "owner gone", "evicted", "drained", "terminated", "StartTLS",
		}, "closed by peer"),
		status.Rejections,
		s.CA.Certificate().Subject.String(), s.CA.Certificate().NotAfter.Unix(),
		s.Other.Certificate().Subject.String(), s.Other.Certificate().NotAfter.Unix(),
		status.Certificates[0].NotAfter.Unix(), min(status.CRLs[0].NextUpdate.Unix(), status.Certificates[0].NotAfter.Unix()))),
		"ergotls_server_connections", "ergotls_server_connection_slots", "ergotls_server_suspended", "ergotls_server_connections_accepted_total",
		"ergotls_server_connections_refused_total", "ergotls_server_connections_ended_total", "ergotls_server_received_bytes_total",
		"ergotls_server_sent_messages_total", "ergotls_manager_generation", "ergotls_manager_reloads_total", "ergotls_manager_drift", "ergotls_manager_polling", "ergotls_manager_clock_steps_total",
		"ergotls_certificate_not_after_timestamp_seconds", "ergotls_manager_expiry_horizon_timestamp_seconds"))

	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == "ergotls_server_handshake_duration_seconds" {
			h := family.Metric[0].Histogram
			assert.EqualValues(t, 2, h.GetSampleCount())
			assert.InDelta(t, stats.Handshakes[0].Total.Seconds(), h.GetSampleSum(), 1e-9)
			assert.Len(t, h.Bucket, len(meta.HandshakeBuckets))
			for i, b := range h.Bucket {
				assert.Equal(t, meta.HandshakeBuckets[i].Seconds(), b.GetUpperBound())
				assert.Equal(t, stats.Handshakes[0].Buckets[i], b.GetCumulativeCount())
			}
			return
		}
	}
	t.Error("there is no histogram of handshakes")
}

// watchOrders adds a manager whose orders fail, because nobody is there where its CA should be.
func watchOrders(t *testing.T, watch *prometheus.Collector) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	m, err := certmanager.New(certmanager.Options{
		Source: &acme.Source{
			Domains: []string{"a.example.test", "b.example.test"}, Directory: "https://" + silent.Addr().String(), Background: true,
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	watch.AddManager("acme", m)
	require.NoError(t, silent.Close()) // not before: the first failure is to be counted too
}

// What became of orders is counted, and which names have no certificate is told.
func TestOrders(t *testing.T) {
	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	watchOrders(t, watch)
	compare := func(text string, names ...string) error {
		return testutil.GatherAndCompare(registry, strings.NewReader(text), names...)
	}
	var err error
	if !assert.Eventually(t, func() bool {
		err = compare(`
# HELP ergotls_acme_names Names of ACME sources, by whether a certificate is in service.
# TYPE ergotls_acme_names gauge
ergotls_acme_names{manager="acme",serving="false"} 2
ergotls_acme_names{manager="acme",serving="true"} 0
# HELP ergotls_acme_consecutive_failures Consecutive failed attempts to obtain a certificate for a name.
# TYPE ergotls_acme_consecutive_failures gauge
ergotls_acme_consecutive_failures{manager="acme",name="a.example.test"} 1
ergotls_acme_consecutive_failures{manager="acme",name="b.example.test"} 1
# HELP ergotls_acme_orders_total Orders of certificates by result, issued or failed, since AddManager.
# TYPE ergotls_acme_orders_total counter
ergotls_acme_orders_total{manager="acme",result="failed"} 2
ergotls_acme_orders_total{manager="acme",result="issued"} 0
`, "ergotls_acme_names", "ergotls_acme_consecutive_failures", "ergotls_acme_orders_total")
		return err == nil
	}, 30*time.Second, 10*time.Millisecond) {
		assert.NoError(t, err)
	}
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

// A server that was started again takes the place of the last one; what was removed is gone, and is
// not held by the manager any longer.
func TestAddAndRemove(t *testing.T) {
	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	ca := tlstest.NewCA(t)
	for range 2 {
		m, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
		require.NoError(t, err)
		defer m.Close()
		watch.AddManager("m", m)
		server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1"})
		require.NoError(t, err)
		defer server.Terminate(nil)
		watch.AddServer("s", server)
	}
	count := func(name string) int {
		n, err := testutil.GatherAndCount(registry, name)
		require.NoError(t, err)
		return n
	}
	assert.Equal(t, 1, count("ergotls_server_connections"))
	assert.Equal(t, 1, count("ergotls_manager_generation"))
	assert.Zero(t, count("ergotls_manager_expiry_horizon_timestamp_seconds"), "nothing ends")
	watch.RemoveManager("m")
	watch.RemoveServer("s")
	watch.RemoveServer("never was there")
	assert.Zero(t, count("ergotls_server_connections"))
	assert.Zero(t, count("ergotls_manager_generation"))

	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1})
	if err == nil {
		defer connection.Terminate(nil)
	}
	assert.Panics(t, func() { watch.AddServer("no server", connection) })
}

// Many certificates, several with one name and one with a name that is no text, fail no scrape, and
// are bounded.
func TestManyNames(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	first := time.Now().Add(time.Hour).Truncate(time.Second)
	ca.Issue(t, tlstest.Leaf{Names: []string{"twice.test"}, NotAfter: first}).Files(t, dir, "first")
	ca.Issue(t, tlstest.Leaf{Names: []string{"twice.test"}, Key: tlstest.RSA2048}).Files(t, dir, "second")
	for i := range 150 {
		ca.Issue(t, tlstest.Leaf{Names: []string{fmt.Sprintf("%s%d.test", strings.Repeat("long", 12), i)}}).Files(t, dir, fmt.Sprint("leaf", i))
	}
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Dir: dir}})
	require.NoError(t, err)
	defer m.Close()
	watch, registry := prometheus.New(), client.NewPedanticRegistry()
	require.NoError(t, registry.Register(watch))
	watch.AddManager("\xff"+strings.Repeat("é", 200), m)
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != "ergotls_certificate_not_after_timestamp_seconds" {
			continue
		}
		assert.Len(t, family.Metric, 100)
		for _, metric := range family.Metric {
			for _, l := range metric.Label {
				assert.LessOrEqual(t, len([]rune(l.GetValue())), 128)
				if l.GetValue() == "twice.test" {
					assert.EqualValues(t, first.Unix(), metric.Gauge.GetValue(), "of two, the one that ends first")
				}
			}
		}
	}
	count, err := testutil.GatherAndCount(registry, "ergotls_certificate_not_after_timestamp_seconds")
	require.NoError(t, err)
	assert.Equal(t, 100, count)
	os.RemoveAll(dir)
}
