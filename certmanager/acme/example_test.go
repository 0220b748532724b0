package acme_test

import (
	"log"
	"net"
	"net/http"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
)

// A public web server: certificates are obtained before New returns, and renewed while
// it serves.
func ExampleSource() {
	certs, err := certmanager.New(certmanager.Options{Source: &acme.Source{
		Domains: []string{"example.com", "www.example.com"},
		Email:   "tls@example.com",
		Cache:   autocert.DirCache("/var/lib/example/certificates"),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	listener, err := net.Listen("tcp", ":443")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(certs.NewListener(listener, "h2", "http/1.1"), nil))
}

// Names are ordered when they are asked for first; until then, and where the CA fails, clients
// get the certificate of the files.
func ExampleSource_onDemand() {
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Sources{
		&acme.Source{HostPolicy: autocert.HostWhitelist("a.example.com", "b.example.com")},
		certmanager.Files{Cert: "fallback.crt", Key: "fallback.key"},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
}

// Challenges are answered on port 80 too, and browsers sent to https.
func ExampleSource_port80() {
	certs, err := certmanager.New(certmanager.Options{Source: &acme.Source{
		Domains: []string{"www.example.com"}, ListenHTTP: ":80",
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	go func() { log.Fatal(http.ListenAndServe(":80", certs.HTTPHandler(nil))) }()
	listener, err := net.Listen("tcp", ":443")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(certs.NewListener(listener, "h2", "http/1.1"), nil))
}

// A name and its wildcard are issued by one TXT record that an operator writes once; no port is
// open.
func ExampleSource_dnsPersist() {
	certs, err := certmanager.New(certmanager.Options{Source: &acme.Source{
		Domains: []string{"example.com", "*.example.com"}, DNSPersist: true,
		Cache: autocert.DirCache("/var/lib/example/certificates"),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
}

// The program writes the records of a wildcard itself.
func ExampleSource_dns() {
	var provider acme.DNSProvider
	certs, err := certmanager.New(certmanager.Options{Source: &acme.Source{
		Domains:      []string{"*.example.com"},
		DNS:          provider, // any provider of github.com/libdns
		StartTimeout: 3 * time.Minute,
		Cache:        autocert.DirCache("/var/lib/example/certificates"),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
}

// A second CA is asked where the first issues nothing.
func ExampleSource_fallbacks() {
	certs, err := certmanager.New(certmanager.Options{Source: &acme.Source{
		Domains: []string{"www.example.com"},
		Fallbacks: []acme.CA{{
			Directory:       "https://acme.zerossl.com/v2/DV90",
			ExternalAccount: &acme.ExternalAccount{KeyID: "kid from the CA", MACKey: "key from the CA"},
		}},
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
}

// servePublicHost is in README.md.
func servePublicHost(handler http.Handler) error {
	certs, err := certmanager.New(certmanager.Options{Source: &acme.Source{Domains: []string{"www.example.com"}}})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", ":443")
	if err != nil {
		return err
	}
	return http.Serve(certs.NewListener(listener, "h2", "http/1.1"), handler)
}

// A public web server with net/http, or any other server that takes a net.Listener.
func ExampleSource_listener() {
	log.Fatal(servePublicHost(http.NotFoundHandler()))
}
