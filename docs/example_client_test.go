package docs_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"log"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// client is an actor with an outgoing connection that stays.
type client struct {
	act.Actor
	certs      *certmanager.Manager
	addrs      []string
	connection gen.Alias
	done       chan struct{}
}

// Init does not wait for the server: the connection dials by itself.
func (c *client) Init(...any) error {
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{
		Addrs:       c.addrs, // tried in turn
		CertManager: c.certs,
		Split:       bufio.ScanLines,
		Reconnect:   &meta.Reconnect{Keep: true},
	})
	if err != nil {
		return err
	}
	if c.connection, err = c.SpawnMeta(connection, gen.MetaOptions{}); err != nil {
		connection.Terminate(err)
		return err
	}
	return c.SendAlias(c.connection, meta.MessageTCP{Data: []byte("hello\n")}) // kept until there is a connection
}

func (c *client) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect:
		fmt.Println("connected over", m.Peer.Version)
	case meta.MessageTCP:
		fmt.Printf("%s\n", m.Data)
		close(c.done)
	case meta.MessageTCPUnsent:
		// The message was not written: send it again, or drop it.
	case meta.MessageTCPDisconnect:
		if m.Retry.IsZero() {
			return m.Reason // it is over
		}
		c.Log().Warning("%s; next try in %s", m.Reason, time.Until(m.Retry))
	}
	return nil
}

func Example_client() {
	ca := newCA()
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{pair(ca, tlstest.Leaf{}).Certificate()}, RootCAs: ca.Pool(),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer certs.Close()
	s, stop := serve(meta.TCPServerOptions{CertManager: certs}, echo)
	defer stop()

	c := &client{certs: certs, addrs: []string{s.listen}, done: make(chan struct{})}
	node := startNode()
	defer node.Stop()
	if _, err := node.Spawn(func() gen.ProcessBehavior { return c }, gen.ProcessOptions{}); err != nil {
		log.Fatal(err)
	}
	<-c.done
	// Output:
	// connected over TLS 1.3
	// hello
}
