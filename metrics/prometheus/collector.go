// Package prometheus exports the counters of package certmanager's managers and package meta's
// servers to Prometheus.
//
// Start with [New], register the Collector with the program's registry, and add managers and
// servers:
//
//	watch := prometheus.New()
//	registry.MustRegister(watch)
//	watch.AddManager("public", manager)
//	watch.AddServer("echo", server) // what meta.CreateTCPServer returned
//
// [Collector.AddLists] adds revocation lists that package crlfetch fetches.
//
// A [Collector] reads the counters when it is collected, and runs no goroutine. The values of
// labels are names chosen by the operator, or from a fixed list, so peers cannot create series. It
// does not serve /metrics: promhttp does. README.md lists the metrics; dashboard.json and
// alerts.yml are for Grafana and Prometheus.
package prometheus

import (
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/crlfetch"
	"github.com/ergotls/ergotls/meta"
)

// Collector is a prometheus.Collector of any number of managers and servers. Make one with [New].
// Any goroutine may call its methods.
type Collector struct {
	mu       sync.Mutex // guards the maps
	managers map[string]*watched
	servers  map[string]gen.MetaBehavior
	lists    map[string]*crlfetch.Source
}

// New returns a Collector without managers and servers.
func New() *Collector {
	return &Collector{managers: map[string]*watched{}, servers: map[string]gen.MetaBehavior{}, lists: map[string]*crlfetch.Source{}}
}

// AddManager adds a manager under a name, the value of the label "manager". It replaces an earlier
// one of that name.
func (c *Collector) AddManager(name string, m *certmanager.Manager) {
	w := watch(m)
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.managers[name]; last != nil {
		last.cancel()
	}
	c.managers[name] = w
}

// AddServer adds a server under a name, the value of the label "server". It replaces an earlier one
// of that name, for example after a restart of its owner. AddServer panics if server was not
// returned by meta.CreateTCPServer.
func (c *Collector) AddServer(name string, server gen.MetaBehavior) {
	meta.Stats(server)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers[name] = server
}

// RemoveManager removes a manager, if there is one of that name.
func (c *Collector) RemoveManager(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.managers[name]; last != nil {
		last.cancel()
	}
	delete(c.managers, name)
}

// RemoveServer removes a server, if there is one of that name.
func (c *Collector) RemoveServer(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.servers, name)
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	managers, servers, lists := maps.Clone(c.managers), maps.Clone(c.servers), maps.Clone(c.lists)
	c.mu.Unlock()
	out <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, moduleVersion(), runtime.Version())
	for name, m := range managers {
		m.collect(out, label(name))
	}
	for name, s := range servers {
		collectServer(out, label(name), meta.Stats(s))
	}
	for name, source := range lists {
		collectLists(out, label(name), source.Lists())
	}
}

var buildInfo = describe("build_info", "The version of this module, empty if it is not known, and of Go: always 1.", "version", "goversion")

var moduleVersion = sync.OnceValue(func() string {
	const module = "github.com/ergotls/ergotls"
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range append(build.Deps, &build.Main) {
			if dep.Path == module {
				return label(dep.Version)
			}
		}
	}
	return ""
})

// descs are all metrics of this package.
var descs []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("ergotls_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
}

// An emitter writes metrics that have their first label in common.
type emitter struct {
	out  chan<- prometheus.Metric
	name string
}

func (e emitter) gauge(d *prometheus.Desc, value float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, slices.Insert(labels, 0, e.name)...)
}

func (e emitter) counter(d *prometheus.Desc, value float64, labels ...string) {
	e.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value, slices.Insert(labels, 0, e.name)...)
}

// label makes a text what a label may be, and no longer than 128 characters.
func label(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if runes := []rune(text); len(runes) > 128 {
		return string(runes[:127]) + "…"
	}
	return text
}
