package docs_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// also gives a file of dir a second name.
func also(dir, from, to string) {
	if err := os.Link(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
		log.Fatal(err)
	}
}

func Example_mutualTLS() {
	ca := newCA()
	dir, leave := folder(ca)
	defer leave()
	also(dir, "root.crt", "clients.crt")
	pair(ca, tlstest.Leaf{Names: []string{"a.web.example.test"}}).WriteFiles(dir, "client")
	empty, err := ca.GenerateCRL(tlstest.CRL{})
	if err != nil {
		log.Fatal(err)
	}
	os.WriteFile("revoked.pem", empty, 0o644)

	certs, err := certmanager.New(certmanager.Options{
		Source: certmanager.Files{
			Cert: "server.crt", Key: "server.key",
			ClientCAs: "clients.crt", // clients must show a certificate of these CAs
			CRLs:      "revoked.pem", // and not be on these lists
		},
		ClientRule: certmanager.DNSName("*.web.example.test", "cron.example.test"), // and be one of these
	})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	s, stop := serve(meta.TCPServerOptions{CertManager: certs}, func(s *service, message any) {
		switch m := message.(type) {
		case meta.MessageTCPConnect:
			fmt.Println(m.Peer.Verified, m.Peer.DNSNames)
		case meta.MessageTCP:
			_ = s.SendAlias(m.ID, m)
		}
	})
	defer stop()

	mine, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: "client.crt", Key: "client.key",
		RootCAs: "root.crt", // servers are verified with these CAs
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer mine.Close()
	done := make(chan struct{})
	node := startNode()
	defer node.Stop()
	_, err = node.Spawn(func() gen.ProcessBehavior { return &caller{certs: mine, port: s.port(), done: done} }, gen.ProcessOptions{})
	if err != nil {
		log.Fatal(err)
	}
	<-done
	// Output:
	// true [a.web.example.test]
	// hello
}

// caller is an actor with one outgoing connection.
type caller struct {
	act.Actor
	certs *certmanager.Manager
	port  uint16
	done  chan struct{}
}

func (c *caller) Init(...any) error {
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: "localhost", Port: c.port, CertManager: c.certs})
	if err != nil {
		return err
	}
	id, err := c.SpawnMeta(connection, gen.MetaOptions{})
	if err != nil {
		connection.Terminate(err)
		return err
	}
	return c.SendAlias(id, meta.MessageTCP{Data: []byte("hello")}) // waits for the handshake
}

func (c *caller) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCP:
		fmt.Printf("%s\n", m.Data)
		return c.SendAlias(m.ID, meta.MessageTCPClose{})
	case meta.MessageTCPDisconnect:
		if errors.Is(m.Reason, meta.ErrHandshake) || errors.Is(m.Reason, meta.ErrRefused) {
			fmt.Println("one side did not trust the other:", m.Reason)
		}
		close(c.done)
	}
	return nil
}

func Example_impact() {
	old, next := newCA(), newCA()
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{pair(old, tlstest.Leaf{}).Certificate()}, ClientCAs: old.Pool(),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	s, stop := serve(meta.TCPServerOptions{CertManager: certs}, echo)
	defer stop()
	client := pair(old, tlstest.Leaf{Names: []string{"cron.example.test"}}).Certificate()
	conn, err := tls.Dial("tcp", s.listen, &tls.Config{RootCAs: old.Pool(), Certificates: []tls.Certificate{client}})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	say(conn, "connected")

	// Who would be cut off if only the new CA were trusted?
	peers, err := certs.DryRun(certmanager.Static{ClientCAs: next.Pool()})
	if err != nil {
		log.Fatal(err)
	}
	for _, peer := range peers {
		fmt.Println(peer.Names)
	}
	// Output:
	// connected
	// [cron.example.test]
}
