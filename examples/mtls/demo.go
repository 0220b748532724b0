package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

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
	loaded chan uint64    // generations that the server has put in service
	seen   chan meta.Peer // clients that the server's actor has heard of
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
		{"two verified actors talk", d.talk},
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

// short is enough of a serial number for a reader.
func short(serial string) string { return serial[:min(8, len(serial))] + "…" }

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
	d.seen = make(chan meta.Peer, 16)
	server, err := startEcho(d.node, "127.0.0.1:0", d.server, d.seen)
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
