// Mtls shows mutual TLS between actors, step by step: an echo server that accepts only clients of
// its CA, certificates that are replaced under live connections, a CA that is replaced without a
// restart. It ends by itself.
//
//	go run ./examples/mtls
//
// With -listen it is a plain long-lived echo server for openssl and curl:
//
//	go run ./examples/mtls -listen 127.0.0.1:4433 -cert server.crt -key server.key -client-ca root.crt -status 127.0.0.1:8080
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/status"
)

func main() {
	listen := flag.String("listen", "", "`host:port` to serve on until interrupted; empty runs the demonstration")
	cert := flag.String("cert", "", "`file` with the server's certificate chain (PEM)")
	key := flag.String("key", "", "`file` with its private key (PEM)")
	clientCA := flag.String("client-ca", "", "`file` with the CAs of the clients (PEM); empty asks for no client certificate")
	page := flag.String("status", "", "`host:port` for a status page, with -listen; a loopback address, since it shows who is connected")
	flag.Parse()

	run := demonstrate
	switch {
	case *listen != "":
		files := certmanager.Files{Cert: *cert, Key: *key, ClientCAs: *clientCA}
		run = func() error { return serve(*listen, *page, files) }
	case *page != "":
		run = func() error { return errors.New("-status: there is nothing to show without -listen") }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

// serve runs the echo server until SIGINT or SIGTERM.
func serve(addr, statusAddr string, files certmanager.Files) error {
	manager, err := certmanager.New(certmanager.Options{Source: files})
	if err != nil {
		return err
	}
	defer manager.Close()
	node, err := startNode(os.Stdout)
	if err != nil {
		return err
	}
	defer node.Stop()
	server, err := startEcho(node, addr, manager, nil)
	if err != nil {
		return err
	}
	if statusAddr != "" {
		listener, err := net.Listen("tcp", statusAddr)
		if err != nil {
			return err
		}
		defer showStatus(listener, manager, files, server)()
	}
	node.SetCTRLC(true)
	node.Wait()
	return nil
}

// showStatus serves a status page until stop is called.
func showStatus(listener net.Listener, manager *certmanager.Manager, files certmanager.Files, server gen.MetaBehavior) (stop func()) {
	page := status.New()
	page.AddManager("mtls", manager, files)
	page.AddServer("echo", server, "mtls")
	fmt.Printf("status page: http://%s/\n", listener.Addr())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := page.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	return func() {
		page.Close()
		serving.Wait()
	}
}

// startNode starts a node that talks to no other node; log takes its lines.
func startNode(log io.Writer) (gen.Node, error) {
	return ergo.StartNode("mtls@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Output: log, TimeFormat: time.TimeOnly}},
	})
}
