// Reload replaces the certificate of a running server. New connections get the new certificate, the
// open connection stays, and a broken file changes nothing. Then it ends.
//
//	go run ./examples/reload
package main

import (
	"crypto/tls"
	"fmt"
	"io"
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

func main() { demonstrate(os.Stdout) }

func demonstrate(out io.Writer) {
	dir := must(os.MkdirTemp("", "reload"))
	defer os.RemoveAll(dir)
	ca := must(tlstest.GenerateCA())
	issue(ca, dir)
	certs := must(certmanager.New(certmanager.Options{
		Source: certmanager.Files{Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key")},
		Logger: slog.New(slog.DiscardHandler), // Subscribe below speaks for it
	}))
	defer certs.Close()
	events := make(chan certmanager.Event, 16)
	defer certs.Subscribe(func(e certmanager.Event) { events <- e })()
	node := must(ergo.StartNode("reload@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	}))
	defer node.Stop()
	server := must(meta.CreateTCPServer(meta.TCPServerOptions{Host: "localhost", CertManager: certs}))
	must(node.Spawn(func() gen.ProcessBehavior { return &echo{server: server} }, gen.ProcessOptions{}))
	addr, config := meta.Stats(server).Listen, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}

	open := must(tls.Dial("tcp", addr, config))
	defer open.Close()
	fmt.Fprintln(out, "serving", serial(open))

	issue(ca, dir)
	fmt.Fprintln(out, (<-events).Kind)
	fresh := must(tls.Dial("tcp", addr, config))
	defer fresh.Close()
	fmt.Fprintln(out, "a new connection sees", serial(fresh))

	must(0, os.WriteFile(filepath.Join(dir, "server.crt"), []byte("nonsense"), 0o644))
	event := <-events
	fmt.Fprintln(out, event.Kind, event.Err)
	again := must(tls.Dial("tcp", addr, config))
	defer again.Close()
	fmt.Fprintln(out, "a new connection still sees", serial(again))

	must(open.Write([]byte("x")))
	must(open.Read(make([]byte, 1)))
	fmt.Fprintln(out, "the first connection still echoes, over", serial(open))
}

// issue makes a certificate for this machine and replaces that in dir.
func issue(ca *tlstest.CA, dir string) {
	_, _, err := must(ca.Generate(tlstest.Leaf{})).WriteFiles(dir, "server")
	must(0, err)
}

func serial(c *tls.Conn) string {
	return "certificate " + c.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)[:8]
}

// must ends the demonstration where something fails. A server would say what, and go on.
func must[T any](value T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return value
}

// echo is an actor that answers each client with its own bytes.
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
