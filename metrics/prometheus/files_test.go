package prometheus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/metrics/prometheus"
)

var (
	metricName = regexp.MustCompile(`\bergotls_[a-z_]+`)
	descName   = regexp.MustCompile(`fqName: "([^"]+)"`)
)

// known are the names of all metrics, with those that Prometheus makes of a histogram.
func known() map[string]bool {
	names := map[string]bool{}
	descs := make(chan *client.Desc, 1000)
	prometheus.New().Describe(descs)
	close(descs)
	for d := range descs {
		name := descName.FindStringSubmatch(d.String())[1]
		names[name] = true
		if strings.HasSuffix(name, "_duration_seconds") {
			names[name+"_bucket"], names[name+"_count"], names[name+"_sum"] = true, true, true
		}
	}
	return names
}

// What the files name is there, and what is there is described.
func TestNames(t *testing.T) {
	names := known()
	require.Greater(t, len(names), 30)
	for _, file := range []string{"dashboard.json", "alerts.yml", "alerts_test.yml", "README.md"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := metricName.FindAllString(string(text), -1)
		require.NotEmpty(t, found, file)
		for _, name := range found {
			assert.True(t, names[name], "%s names %s, which does not exist", file, name)
		}
		if file == "README.md" {
			for name := range names {
				if !strings.HasSuffix(name, "_bucket") && !strings.HasSuffix(name, "_count") && !strings.HasSuffix(name, "_sum") {
					assert.Contains(t, found, name, "README.md misses it")
				}
			}
			for _, reason := range meta.RefusedReasons {
				assert.Regexp(t, "[,:] "+reason+"(,| \\|)", string(text), "README.md misses a reason")
			}
		}
	}
}

var (
	runbook = regexp.MustCompile(`runbook_url: "https://github.com/ergotls/ergotls/blob/main/(docs/[a-z-]+\.md)#([a-z-]+)"`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	symbol  = regexp.MustCompile(`[^a-z0-9 -]`)
)

// Each alert leads to a heading that is there.
func TestRunbooks(t *testing.T) {
	text, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	found := runbook.FindAllStringSubmatch(string(text), -1)
	require.Len(t, found, strings.Count(string(text), "- alert:"))
	for _, link := range found {
		page, err := os.ReadFile(filepath.Join("../..", link[1]))
		require.NoError(t, err)
		var anchors []string
		for _, h := range heading.FindAllStringSubmatch(string(page), -1) {
			anchors = append(anchors, strings.ReplaceAll(symbol.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
		}
		assert.Contains(t, anchors, link[2], link[1])
	}
}

// The alerts are silent in good times and ring in bad ones.
func TestAlerts(t *testing.T) {
	promtool := needs.Program(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		out, err := exec.Command(promtool, args...).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
}

// Prometheus's own tool has nothing to say about names, units and help texts of what a server and a
// manager give.
func TestPromtoolCheckMetrics(t *testing.T) {
	promtool := needs.Program(t, "promtool")
	_, _, registry := busy(t)
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = page.Body
	out, err := check.CombinedOutput()
	assert.NoError(t, err)
	assert.Empty(t, string(out))
}

// queries are the queries of dashboard.json, as Grafana would send them.
func queries(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		SchemaVersion int
		Panels        []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Annotations struct{ List []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	fill := strings.NewReplacer("$__rate_interval", "1m", "$manager", ".*", "$server", ".*")
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		assert.False(t, ids[p.ID], "two panels have the id %d", p.ID)
		ids[p.ID] = true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		assert.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for _, target := range p.Targets {
			all = append(all, fill.Replace(target.Expr))
		}
	}
	for _, a := range dashboard.Annotations.List {
		all = append(all, fill.Replace(a.Expr))
	}
	require.Greater(t, len(all), 20)
	return all
}

// A real Prometheus takes what the collector gives, answers every query of the dashboard, and
// evaluates every alert.
func TestDashboard(t *testing.T) {
	needs.Long(t)
	program := needs.Program(t, "prometheus")
	s, watch, registry := busy(t)
	watchOrders(t, watch)
	target := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer target.Close()
	api := startPrometheus(t, program, target.Listener.Addr().String())
	require.Eventually(t, func() bool {
		values, err := query(api, `count_over_time(ergotls_manager_generation[1m]) > 2`)
		return err == nil && len(values) == 2
	}, time.Minute, 100*time.Millisecond, "Prometheus has scraped three times")
	s.Rotate(t)
	s.Break(t)
	var states map[string]string
	var err error
	assert.Eventually(t, func() bool {
		states, err = alertStates(api)
		return states["ErgoTLSReloadFailing"] == "firing"
	}, time.Minute, 100*time.Millisecond, "the alert rings for what was rejected while Prometheus watched")
	assert.NoError(t, err)
	rules, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	assert.Len(t, states, strings.Count(string(rules), "- alert: "))
	for _, quiet := range []string{"ErgoTLSCertificateExpiresSoon", "ErgoTLSExpired", "ErgoTLSRevocationListOutOfDate"} {
		assert.Equal(t, "inactive", states[quiet], quiet)
	}
	for _, q := range queries(t) {
		values, err := query(api, q)
		if assert.NoError(t, err, q) && !strings.Contains(q, "acme_certificate_not_after") && !strings.Contains(q, "acme_record_end") { // of names that were issued
			assert.NotEmpty(t, values, q)
		}
	}
}

// alertStates are the states by name of all alerts, and an error if one has not been evaluated, or
// could not be.
func alertStates(api string) (map[string]string, error) {
	var answer struct {
		Groups []struct {
			Rules []struct{ Name, State, Health, LastError string }
		}
	}
	err := get(api+"/api/v1/rules", &answer)
	states := map[string]string{}
	for _, group := range answer.Groups {
		for _, rule := range group.Rules {
			states[rule.Name] = rule.State
			if rule.Health != "ok" {
				err = errors.Join(err, fmt.Errorf("%s is %s: %s", rule.Name, rule.Health, rule.LastError))
			}
		}
	}
	return states, err
}

func startPrometheus(t *testing.T, program, target string) (api string) {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", needs.Port(t))
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	rules, err := filepath.Abs("alerts.yml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs: [{job_name: test, static_configs: [{targets: [%q]}]}]
`, rules, target), 0o600))
	server := exec.Command(program, "--config.file", config, "--storage.tsdb.path", dir, "--web.listen-address", addr)
	server.Stderr = t.Output()
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		server.Process.Kill()
		server.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + addr
}

func query(api, q string) (values []any, err error) {
	var answer struct{ Result []any }
	err = get(api+"/api/v1/query?query="+url.QueryEscape(q), &answer)
	return answer.Result, err
}

// get asks Prometheus and puts the data of its answer into data.
func get(url string, data any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return nil
}
