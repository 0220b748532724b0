package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// demo is what the steps share.
type demo struct {
	node   gen.Node
	dir    string // with server.crt, server.key and clients.crt, which the server watches
	port   uint16
	ca     *tlstest.CA
	server *certmanager.Manager
	loaded chan uint64 // generations that the server has put in service
	alice  *certmanager.Manager
	first  *session // alice's first connection; it stays open
	serial string   // of the server's certificate at that time

	managers []*certmanager.Manager
}

// demonstrate runs the steps. The error names the one that did not hold.
func demonstrate() error {
	d := &demo{}
	steps := []struct {
		name string
		run  func() error
	}{
		{"an mTLS echo server starts on certificate files", d.start},
		{"two proven actors talk", d.talk},
		{"a client without a certificate is refused", d.refuseNameless},
		{"a client of another CA is refused, though that CA has the same name", d.refuseStranger},
		{"the server's certificate is replaced on disk, under a live connection", d.replaceCertificate},
		{"the clients' CA is replaced: the old client is out, without a restart", d.replaceCA},
	}
	defer d.stop()
	for i, step := range steps {
		fmt.Printf("%d. %s\n", i+1, step.name)
		if err := step.run(); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, step.name, err)
		}
	}
	fmt.Println("All steps held.")
	return nil
}

func show(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

func (d *demo) start() (err error) {
	if d.dir, err = os.MkdirTemp("", "mtls"); err != nil {
		return err
	}
	if d.ca, err = newCA(); err != nil {
		return err
	}
	if err := d.writeServer(d.ca); err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(d.dir, name) }
	d.server, err = d.manage(certmanager.Files{
		Cert: path("server.crt"), Key: path("server.key"), ClientCAs: path("clients.crt"),
	})
	if err != nil {
		return err
	}
	d.loaded = make(chan uint64, 16)
	d.server.Subscribe(func(e certmanager.Event) {
		if e.Kind == certmanager.Loaded && e.Generation > 1 {
			d.loaded <- e.Generation
		}
	})
	if d.node, err = startNode(io.Discard); err != nil {
		return err
	}
	server, err := startEcho(d.node, "127.0.0.1:0", d.server)
	if err != nil {
		return err
	}
	addr := meta.Stats(server).Listen
	show("listening on %s, files in %s", addr, d.dir)
	_, port, _ := net.SplitHostPort(addr)
	number, err := strconv.ParseUint(port, 10, 16)
	d.port = uint16(number)
	return err
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

func (d *demo) talk() (err error) {
	if d.alice, err = d.newClient("alice", d.ca); err != nil {
		return err
	}
	if d.first, err = d.connect(d.alice); err != nil {
		return err
	}
	server := d.first.peer
	d.serial = server.Serial
	show("alice sees %s, serial %s, over %s", server.Subject, short(server.Serial), server.Version)
	return d.first.echo("hello from alice")
}

func (d *demo) refuseNameless() error {
	manager, err := d.manage(certmanager.Static{RootCAs: d.ca.Pool()})
	if err != nil {
		return err
	}
	return d.refused(manager)
}

func (d *demo) refuseStranger() error {
	other, err := newCA()
	if err != nil {
		return err
	}
	mallory, err := d.newClient("mallory", other)
	if err != nil {
		return err
	}
	return d.refused(mallory)
}

func (d *demo) replaceCertificate() error {
	if err := d.writeServer(d.ca); err != nil {
		return err
	}
	if err := d.awaitLoaded(); err != nil {
		return err
	}
	s, err := d.connect(d.alice)
	if err != nil {
		return err
	}
	if s.peer.Serial == d.serial {
		return errors.New("a new connection still sees the old certificate")
	}
	show("a new connection sees serial %s", short(s.peer.Serial))
	show("the connection on serial %s is still there:", short(d.serial))
	return d.first.echo("still here")
}

func (d *demo) replaceCA() error {
	other, err := newCA()
	if err != nil {
		return err
	}
	if err := tlstest.WriteFile(filepath.Join(d.dir, "clients.crt"), other.PEM(), 0o644); err != nil {
		return err
	}
	if err := d.awaitLoaded(); err != nil {
		return err
	}
	reason, err := d.first.ended()
	if err != nil {
		return err
	}
	show("alice's open connection was closed: %s", reason)
	if err := d.refused(d.alice); err != nil {
		return err
	}
	bob, err := d.newClient("bob", other)
	if err != nil {
		return err
	}
	s, err := d.connect(bob)
	if err != nil {
		return err
	}
	return s.echo("hello from bob, of the new CA")
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

func (d *demo) stop() {
	if d.node != nil {
		d.node.Stop()
	}
	for _, manager := range d.managers {
		manager.Close()
	}
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

// newCA makes a CA. All of them have the same name: trust is in keys, not in names.
func newCA() (*tlstest.CA, error) {
	return tlstest.GenerateCA(func(template *x509.Certificate) {
		template.Subject = pkix.Name{CommonName: "Example Root"}
	})
}

// newClient gives the certificates of a client whose own is issued by issuer; it trusts the server's CA.
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

// manage makes a manager that stop closes. It logs nothing: the demonstration shows by itself what it is about.
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

// refused expects that the server refuses a client. In TLS 1.3 the client hears of it only after its own handshake.
func (d *demo) refused(manager *certmanager.Manager) error {
	s, err := d.connect(manager)
	if err == nil {
		reason, err2 := s.ended()
		if err2 != nil {
			return err2
		}
		err = reason
	}
	if !errors.Is(err, meta.ErrRefused) {
		return fmt.Errorf("it was not refused, but: %w", err)
	}
	show("the client saw: %s", err)
	return nil
}

// short is enough of a serial number for a reader.
func short(serial string) string { return serial[:min(8, len(serial))] + "…" }
