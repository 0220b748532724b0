package spiffe_test

import (
	"log"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/spiffe"
)

// The identity of a program and whom it trusts come from the SPIRE agent on its machine.
func ExampleSource() {
	certs, err := certmanager.New(certmanager.Options{
		Source:     &spiffe.Source{Addr: "unix:///run/spire/agent.sock"},
		ClientRule: certmanager.SPIFFEID("spiffe://example.org/web", "spiffe://example.org/cron"), // who may connect
		ServerRule: certmanager.SPIFFEID("spiffe://example.org/db"),                               // whom this program calls
	})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
}
