package status_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/status"
	"github.com/ergotls/ergotls/tlstest"
)

// The page is an http.Handler; here it is served under a path of a larger site.
func ExampleNew() {
	ca, _ := tlstest.GenerateCA()
	manager, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	if err != nil {
		log.Fatal(err)
	}
	defer manager.Close()
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1"}) // an actor hands it to SpawnMeta
	if err != nil {
		log.Fatal(err)
	}
	defer server.Terminate(nil)

	page := status.New()
	defer page.Close()
	page.AddManager("main", manager, nil)
	page.AddServer("echo", server, "main")
	site := http.NewServeMux()
	site.Handle("GET /tls/", page) // behind whatever decides who is an operator

	answer := httptest.NewRecorder()
	site.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/tls/", nil))
	fmt.Println(answer.Code, strings.Contains(answer.Body.String(), "All is well."))
	// Output: 200 true
}
