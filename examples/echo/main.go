// Echo is the smallest useful server: an actor that sends back what TLS clients send.
//
//	go run ./examples/echo
//	openssl s_client -quiet -connect localhost:4433 -CAfile testdata/certs/root.crt
//
// It runs until Ctrl-C. Outside of the repository name the files with -cert and -key; they may
// change at any time. With -client-ca only clients of that CA are accepted.
package main

import (
	"flag"
	"log"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/flags"
	"github.com/ergotls/ergotls/meta"
)

func main() {
	var files certmanager.Files
	flag.StringVar(&files.Cert, "cert", "testdata/certs/server.crt", "`file` with the certificate chain (PEM)")
	flag.StringVar(&files.Key, "key", "testdata/certs/server.key", "`file` with its private key (PEM)")
	flag.StringVar(&files.ClientCAs, "client-ca", "", "`file` with the CAs of clients (PEM); empty asks for no client certificate")
	port := flags.Port(4433)
	flag.Parse()
	certs, err := certmanager.New(certmanager.Options{Source: files})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	node, err := start(*port, certs)
	if err != nil {
		log.Fatal(err)
	}
	node.SetCTRLC(true)
	node.Wait()
}

// start starts a node with the server on it.
func start(port uint16, certs gen.CertManager) (gen.Node, error) {
	node, err := ergo.StartNode("echo@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{TimeFormat: time.DateTime}},
	})
	if err != nil {
		return nil, err
	}
	actor := &echo{port: port, certs: certs}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{}); err != nil {
		node.Stop()
		return nil, err
	}
	return node, nil
}

type echo struct {
	act.Actor
	port  uint16
	certs gen.CertManager
}

// Init opens the port. What happens on it comes as messages.
func (e *echo) Init(...any) error {
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "localhost", Port: e.port, CertManager: e.certs})
	if err != nil {
		return err
	}
	if _, err := e.SpawnMeta(server, gen.MetaOptions{}); err != nil {
		server.Terminate(err) // frees the port
		return err
	}
	return nil
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect: // the handshake is complete
		e.Log().Info("%s is here over %s", m.Peer, m.Peer.Version)
	case meta.MessageTCP:
		_ = e.SendAlias(m.ID, m) // on error the peer has gone: its Disconnect is on the way
	case meta.MessageTCPDisconnect: // the last message of a connection
		e.Log().Info("%s has gone: %s", m.ID, m.Reason)
	}
	return nil
}
