package docs_test

import (
	"fmt"
	"log"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// What the repository's README shows.

type Echo struct {
	act.Actor
	Certs *certmanager.Manager
}

func (e *Echo) Init(...any) error {
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Port: 4433, CertManager: e.Certs})
	if err != nil {
		return err
	}
	if _, err := e.SpawnMeta(server, gen.MetaOptions{}); err != nil {
		server.Terminate(err) // frees the port
		return err
	}
	return nil
}

func (e *Echo) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect: // the handshake is complete, the peer is proven
		e.Log().Info("%s is here", m.Peer)
	case meta.MessageTCP:
		e.SendAlias(m.ID, m) // a write to the peer
	case meta.MessageTCPDisconnect: // the last message, with the reason
		e.Log().Info("%s is gone: %s", m.ID, m.Reason)
	}
	return nil
}

func Example_readme() {
	dir, leave := folder(newCA())
	defer leave()
	also(dir, "root.crt", "clients.crt")

	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: "server.crt", Key: "server.key", ClientCAs: "clients.crt", // ClientCAs asks for client certificates
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	fmt.Println(certs.ClientAuth())
	// Output: RequireAndVerifyClientCert
}
