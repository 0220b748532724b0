// Mtls is mutual TLS between actors, step by step: an echo server that lets only
// clients of its CA in, certificates replaced under live connections, a CA replaced without a restart.
//
//	go run ./examples/mtls
//
// With -listen it is a plain long-lived echo server for openssl and curl:
//
//	go run ./examples/mtls -listen 127.0.0.1:4433 -cert server.crt -key server.key -client-ca root.crt
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
)

func main() {
	listen := flag.String("listen", "", "`host:port` to serve on until interrupted; empty runs the demonstration")
	cert := flag.String("cert", "", "`file` with the server's certificate chain (PEM)")
	key := flag.String("key", "", "`file` with its private key (PEM)")
	clientCA := flag.String("client-ca", "", "`file` with the CAs of the clients (PEM); empty asks for no client certificate")
	flag.Parse()

	run := demonstrate
	if *listen != "" {
		files := certmanager.Files{Cert: *cert, Key: *key, ClientCAs: *clientCA}
		run = func() error { return serve(*listen, files) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "FAILED:", err)
		os.Exit(1)
	}
}

// serve runs the echo server until SIGINT or SIGTERM.
func serve(addr string, files certmanager.Files) error {
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
	if _, err := startEcho(node, addr, manager); err != nil {
		return err
	}
	node.SetCTRLC(true)
	node.Wait()
	return nil
}

// startNode starts a node that talks to no other node; log takes its lines.
func startNode(log io.Writer) (gen.Node, error) {
	return ergo.StartNode("mtls@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Output: log, TimeFormat: time.TimeOnly}},
	})
}
