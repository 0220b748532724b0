package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

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
	if err := d.first.echo("hello from alice"); err != nil {
		return err
	}
	client := <-d.seen // it is there: the server hears who it is before what it says
	show("the server sees %s, serial %s", client.Subject, short(client.Serial))
	if client.Subject != "CN=alice" {
		return errors.New("the server does not know who it talks to")
	}
	return nil
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

// refused expects that the server refuses a client. In TLS 1.3 the client hears of it only after
// its own handshake.
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
