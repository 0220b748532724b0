// Reload replaces the certificate of a running server and shows what happens: new connections get the new one, the open one stays,
// a broken file changes nothing. It ends by itself.
//
//	go run ./examples/reload
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func main() {
	if err := demonstrate(); err != nil {
		log.Fatal(err)
	}
}

func demonstrate() error {
	dir, err := os.MkdirTemp("", "reload")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ca, err := tlstest.GenerateCA()
	if err != nil {
		return err
	}
	if err := issue(ca, dir); err != nil {
		return err
	}
	certs, err := certmanager.New(certmanager.Options{
		Source: certmanager.Files{Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key")},
		Logger: slog.New(slog.DiscardHandler), // Subscribe below speaks for it
	})
	if err != nil {
		return err
	}
	defer certs.Close()
	events := make(chan certmanager.Event, 16)
	defer certs.Subscribe(func(e certmanager.Event) { events <- e })()
	node, err := ergo.StartNode("reload@localhost", gen.NodeOptions{Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled}})
	if err != nil {
		return err
	}
	defer node.Stop()
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "localhost", CertManager: certs})
	if err != nil {
		return err
	}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return &echo{server: server} }, gen.ProcessOptions{}); err != nil {
		server.Terminate(err)
		return err
	}
	addr := meta.Stats(server).Listen

	open, err := connect(addr, ca.Pool())
	if err != nil {
		return err
	}
	defer open.Close()
	fmt.Println("serving          ", serial(open))
	if err := issue(ca, dir); err != nil {
		return err
	}
	fmt.Println((<-events).Kind)
	fresh, err := connect(addr, ca.Pool())
	if err != nil {
		return err
	}
	defer fresh.Close()
	fmt.Println("a new connection ", serial(fresh))

	if err := os.WriteFile(filepath.Join(dir, "server.crt"), []byte("nonsense"), 0o644); err != nil {
		return err
	}
	event := <-events
	fmt.Println(event.Kind, event.Err)
	if _, err := open.Write([]byte("x")); err != nil {
		return err
	}
	if _, err := open.Read(make([]byte, 1)); err != nil {
		return err
	}
	fmt.Println("the first one    ", serial(open), "still echoes")
	return nil
}

// issue makes a certificate for this machine and replaces that in dir.
func issue(ca *tlstest.CA, dir string) error {
	pair, err := ca.Generate(tlstest.Leaf{})
	if err != nil {
		return err
	}
	_, _, err = pair.WriteFiles(dir, "server")
	return err
}

func connect(addr string, roots *x509.CertPool) (*tls.Conn, error) {
	return tls.Dial("tcp", addr, &tls.Config{RootCAs: roots})
}

func serial(c *tls.Conn) string {
	return "certificate " + c.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)[:8]
}

type echo struct {
	act.Actor
	server gen.MetaBehavior
}

func (e *echo) Init(...any) error {
	_, err := e.SpawnMeta(e.server, gen.MetaOptions{})
	return err
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = e.SendAlias(m.ID, m)
	}
	return nil
}
