// Generate makes the certificates in testdata/certs again. Run it at the root of
// the repository:
//
//	go run ./testdata/certs/generate
package main

import (
	"crypto/x509"
	"log"
	"path/filepath"
	"time"

	"github.com/ergotls/ergotls/tlstest"
)

const dir = "testdata/certs"

var (
	// Early enough for testing/synctest, whose clock starts at 2000-01-01.
	notBefore = time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2085, 1, 1, 0, 0, 0, 0, time.UTC)
)

func main() {
	log.SetFlags(0)
	if err := generate(); err != nil {
		log.Fatal(err)
	}
}

func generate() error {
	root, err := newRoot("root", "ergotls test root")
	if err != nil {
		return err
	}
	if err := issue(root, "server", tlstest.Leaf{
		Names: []string{"localhost", "127.0.0.1", "::1", "server.example.test"},
		Usage: tlstest.ServerOnly,
	}); err != nil {
		return err
	}
	client := tlstest.Leaf{
		CommonName: "client.example.test",
		URIs:       []string{"spiffe://example.test/client"},
		Usage:      tlstest.ClientOnly,
	}
	if err := issue(root, "client", client); err != nil {
		return err
	}
	other, err := newRoot("other-root", "ergotls other test root")
	if err != nil {
		return err
	}
	return issue(other, "other-client", client)
}

func newRoot(file, name string) (*tlstest.CA, error) {
	ca, err := tlstest.GenerateCA(func(c *x509.Certificate) {
		c.Subject.CommonName, c.NotBefore, c.NotAfter = name, notBefore, notAfter
	})
	if err != nil {
		return nil, err
	}
	return ca, tlstest.WriteFile(filepath.Join(dir, file+".crt"), ca.PEM(), 0o644)
}

func issue(ca *tlstest.CA, file string, leaf tlstest.Leaf) error {
	leaf.NotBefore, leaf.NotAfter = notBefore, notAfter
	pair, err := ca.Generate(leaf)
	if err != nil {
		return err
	}
	_, _, err = pair.WriteFiles(dir, file)
	return err
}
