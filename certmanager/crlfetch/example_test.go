package crlfetch_test

import (
	"log"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/crlfetch"
)

// Clients are checked against a list that the CA publishes.
func ExampleSource() {
	certs, err := certmanager.New(certmanager.Options{Source: &crlfetch.Source{
		Source: certmanager.Files{Cert: "server.crt", Key: "server.key", ClientCAs: "clients.crt"},
		URLs:   []string{"http://ca.example.com/clients.crl"},
		Dir:    "/var/lib/example/crls", // the last good list, for a restart without the network
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
}
