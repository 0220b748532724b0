//go:build upstream

// Cluster is a TLS server on one node whose clients are served by a process on another, on Ergo itself:
//
//	GOWORK=off go run -tags upstream ./examples/cluster
//	openssl s_client -quiet -connect localhost:4433
package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"log"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func main() {
	port := flag.Uint("port", 4433, "`port` to listen on")
	flag.Parse()
	front, back, err := start(uint16(*port))
	if err != nil {
		log.Fatal(err)
	}
	front.SetCTRLC(true)
	front.Wait()
	back.Stop()
}

// start starts both nodes. They find and reach each other over localhost.
func start(port uint16) (front, back gen.Node, err error) {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		return nil, nil, err
	}
	pair, err := ca.Generate(tlstest.Leaf{}) // in earnest: certmanager.Files
	if err != nil {
		return nil, nil, err
	}
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{pair.Certificate()}}})
	if err != nil {
		return nil, nil, err
	}
	network := gen.NetworkOptions{Cookie: "the same on all nodes", Acceptors: []gen.AcceptorOptions{{Host: "localhost"}}}
	if back, err = ergo.StartNode("back@localhost", gen.NodeOptions{Network: network}); err != nil {
		return nil, nil, err
	}
	if front, err = ergo.StartNode("front@localhost", gen.NodeOptions{Network: network}); err != nil {
		back.Stop()
		return nil, nil, err
	}
	_, err = back.SpawnRegister("counter", func() gen.ProcessBehavior { return &counter{} }, gen.ProcessOptions{})
	if err == nil {
		_, err = front.Spawn(func() gen.ProcessBehavior { return &gateway{port: port, certs: certs} }, gen.ProcessOptions{})
	}
	if err != nil {
		front.Stop()
		back.Stop()
	}
	return front, back, err
}

// counter lives on the back node and has never heard of TLS.
type counter struct {
	act.Actor
	lines int
}

func (c *counter) HandleCall(_ gen.PID, _ gen.Ref, request any) (any, error) {
	c.lines++
	return fmt.Sprintf("%d: %v", c.lines, request), nil
}

// gateway lives on the front node and owns the connections.
type gateway struct {
	act.Actor
	port  uint16
	certs gen.CertManager
}

func (g *gateway) Init(...any) error {
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "localhost", Port: g.port, CertManager: g.certs, Split: bufio.ScanLines})
	if err != nil {
		return err
	}
	if _, err = g.SpawnMeta(server, gen.MetaOptions{}); err != nil {
		server.Terminate(err)
	}
	return err
}

func (g *gateway) HandleMessage(_ gen.PID, message any) error {
	m, ok := message.(meta.MessageTCP)
	if !ok {
		return nil
	}
	answer, err := g.Call(gen.ProcessID{Name: "counter", Node: "back@localhost"}, string(m.Data))
	if err != nil {
		answer = fmt.Sprintf("the other node does not answer: %s", err)
	}
	_ = g.SendAlias(m.ID, meta.MessageTCP{Data: fmt.Appendln(nil, answer)}) // an error says that the client has gone
	return nil
}
