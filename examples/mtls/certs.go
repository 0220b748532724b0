package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// newCA makes a CA. All of them have the same name: trust is in keys, not in names.
func newCA() (*tlstest.CA, error) {
	return tlstest.GenerateCA(func(template *x509.Certificate) {
		template.Subject = pkix.Name{CommonName: "Example Root"}
	})
}

// writeServer issues a server certificate, and makes ca the CA of the clients.
func (d *demo) writeServer(clients *tlstest.CA) error {
	pair, err := d.ca.Generate(tlstest.Leaf{CommonName: "server", Names: []string{"localhost"}, Usage: tlstest.ServerOnly})
	if err != nil {
		return err
	}
	if _, _, err := pair.WriteFiles(d.dir, "server"); err != nil {
		return err
	}
	return tlstest.WriteFile(filepath.Join(d.dir, "clients.crt"), clients.PEM(), 0o644)
}

// newClient returns the certificates of a client. Its own is issued by issuer, and it trusts the
// server's CA.
func (d *demo) newClient(name string, issuer *tlstest.CA) (*certmanager.Manager, error) {
	pair, err := issuer.Generate(tlstest.Leaf{CommonName: name, Usage: tlstest.ClientOnly})
	if err != nil {
		return nil, err
	}
	cert, key, err := pair.WriteFiles(d.dir, name)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(d.dir, "root.crt")
	if err := tlstest.WriteFile(root, d.ca.PEM(), 0o644); err != nil {
		return nil, err
	}
	return d.manage(certmanager.Files{Cert: cert, Key: key, RootCAs: root})
}

// manage makes a manager that stop closes. It logs nothing: the demonstration shows by itself what
// it is about.
func (d *demo) manage(source certmanager.Source) (*certmanager.Manager, error) {
	manager, err := certmanager.New(certmanager.Options{
		Source: source, Logger: slog.New(slog.DiscardHandler),
		MaxSessionAge: -1, // no resumption: a resumed session shows the certificate that it began with
	})
	if err == nil {
		d.managers = append(d.managers, manager)
	}
	return manager, err
}

// awaitLoaded waits until the server has noticed that its files have changed.
func (d *demo) awaitLoaded() error {
	select {
	case generation := <-d.loaded:
		show("the server has loaded generation %d", generation)
		return nil
	case <-time.After(5 * time.Second):
		return errTooLong
	}
}
