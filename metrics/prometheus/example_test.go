package prometheus_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	client "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	ergotlsprom "github.com/ergotls/ergotls/metrics/prometheus"
	"github.com/ergotls/ergotls/tlstest"
)

// A server and its manager are watched, each under a name; promhttp serves the registry.
func ExampleNew() {
	ca, _ := tlstest.GenerateCA()
	manager, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	if err != nil {
		log.Fatal(err)
	}
	defer manager.Close()
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", MaxConnections: 1000}) // an actor passes it to SpawnMeta
	if err != nil {
		log.Fatal(err)
	}
	defer server.Terminate(nil)

	registry := client.NewRegistry()
	watch := ergotlsprom.New()
	registry.MustRegister(watch)
	watch.AddManager("main", manager)
	watch.AddServer("echo", server)

	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, "ergotls_server_connection_slots") || strings.HasPrefix(line, "ergotls_manager_generation") {
			fmt.Print(line)
		}
	}
	// Output:
	// ergotls_manager_generation{manager="main"} 1
	// ergotls_server_connection_slots{server="echo"} 1000
}
