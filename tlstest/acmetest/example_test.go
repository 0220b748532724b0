package acmetest_test

import (
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// An HTTPS server gets its certificate. In a test, acmetest.Start(t) is the first line.
func Example() {
	ca, err := acmetest.New(acmetest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer ca.Close()

	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		HostPolicy: autocert.HostWhitelist("www.example.test"),
		Client:     &acme.Client{DirectoryURL: ca.Directory(), HTTPClient: ca.HTTPClient()},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{TLSConfig: manager.TLSConfig(), Handler: http.NotFoundHandler()}
	go server.ServeTLS(listener, "", "")
	defer server.Close()
	ca.TLSALPN01(listener.Addr().String())

	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{ServerName: "www.example.test", RootCAs: ca.Roots()})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Println(conn.ConnectionState().PeerCertificates[0].DNSNames, ca.Orders("www.example.test"))
	// Output: [www.example.test] 1
}
