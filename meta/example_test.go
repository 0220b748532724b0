package meta_test

import (
	"fmt"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// EchoServer owns a TCP server and answers each peer with its own bytes.
type EchoServer struct {
	act.Actor
}

func (t *EchoServer) Init(...any) error {
	opt := meta.TCPServerOptions{Port: 17171}
	metatcp, err := meta.CreateTCPServer(opt)
	if err != nil {
		return err
	}
	if _, err := t.SpawnMeta(metatcp, gen.MetaOptions{}); err != nil {
		metatcp.Terminate(err) // frees the port, also when Init never ran
		return err
	}
	return nil
}

func (t *EchoServer) HandleMessage(from gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		t.SendAlias(m.ID, m)
	}
	return nil
}

// EchoClient says hello and prints the answer.
type EchoClient struct {
	act.Actor
	port uint16
	done chan struct{}
}

func (c *EchoClient) Init(...any) error {
	opt := meta.TCPConnectionOptions{Port: c.port}
	connection, err := meta.CreateTCPConnection(opt)
	if err != nil {
		return err
	}
	id, err := c.SpawnMeta(connection, gen.MetaOptions{})
	if err != nil {
		connection.Terminate(err)
		return err
	}
	return c.SendAlias(id, meta.MessageTCP{Data: []byte("hello")})
}

func (c *EchoClient) HandleMessage(from gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCP:
		fmt.Printf("%s\n", m.Data)
		return c.SendAlias(m.ID, meta.MessageTCPClose{})
	case meta.MessageTCPDisconnect:
		fmt.Println(m.Reason)
		close(c.done)
	}
	return nil
}

func Example() {
	node, err := ergo.StartNode("example@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Disable: true}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Stop()
	if _, err := node.Spawn(func() gen.ProcessBehavior { return &EchoServer{} }, gen.ProcessOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	client := &EchoClient{port: 17171, done: make(chan struct{})}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return client }, gen.ProcessOptions{}); err != nil {
		fmt.Println(err)
		return
	}
	<-client.done
	// Output:
	// hello
	// terminated
}

// A server over TLS that lets only clients of its own CA in. The files are watched: new ones are
// used without a restart.
func ExampleCreateTCPServer_mutualTLS() {
	manager, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: "../testdata/certs/server.crt", Key: "../testdata/certs/server.key",
		ClientCAs: "../testdata/certs/root.crt",
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer manager.Close()
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", CertManager: manager})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Terminate(nil) // an actor would SpawnMeta it
	fmt.Println("ready")
	// Output: ready
}

func ExampleCreateTCPConnection() {
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: "127.0.0.1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	connection.Terminate(nil)
	// Output: meta: invalid option: Port: is 0; set the port to connect to
}

func ExampleLengthPrefixed() {
	split, err := meta.LengthPrefixed{Width: 4, MaxPayload: 1 << 20}.Split()
	if err != nil {
		fmt.Println(err)
		return
	}
	options := meta.TCPServerOptions{Split: split, MaxFrame: 4 + 1<<20}
	fmt.Println(options.MaxFrame)
	// Output: 1048580
}

// Echo is a TLS server: an actor that owns a port and answers each peer with its own bytes.
type Echo struct {
	act.Actor
	Certs *certmanager.Manager
}

func (e *Echo) Init(...any) error {
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Port: 4433, CertManager: e.Certs})
	if err != nil {
		return err
	}
	_, err = e.SpawnMeta(server, gen.MetaOptions{})
	return err
}

func (e *Echo) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect: // the handshake is complete, the peer is verified
		e.Log().Info("%s is here", m.Peer)
	case meta.MessageTCP:
		e.SendAlias(m.ID, m) // a write to the peer
	case meta.MessageTCPDisconnect: // the last message, with the reason
		e.Log().Info("%s is gone: %s", m.ID, m.Reason)
	}
	return nil
}

func ExampleCreateTCPServer() {
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: "server.crt", Key: "server.key"}})
	if err != nil {
		fmt.Println("there are no files here")
		return
	}
	defer certs.Close()
	node, err := ergo.StartNode("echo@localhost", gen.NodeOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	node.Spawn(func() gen.ProcessBehavior { return &Echo{Certs: certs} }, gen.ProcessOptions{})
	node.Wait()
	// Output: there are no files here
}

func ExampleCreateTCPServer_clientCAs() {
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: "server.crt", Key: "server.key",
		ClientCAs: "clients.crt", // asks for client certificates, and lets nobody in without one
	}})
	fmt.Println(certs != nil, err != nil)
	// Output: false true
}
