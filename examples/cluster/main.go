//go:build upstream

// Cluster is a TLS server on one node and the worker for its clients on another, on Ergo itself.
// The link between the nodes is mutual TLS:
//
//	GOWORK=off go run -tags upstream ./examples/cluster
//	openssl s_client -quiet -connect localhost:4433
//
// It runs until Ctrl-C.
package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func main() {
	front, back, err := start(4433)
	if err != nil {
		log.Fatal(err)
	}
	front.SetCTRLC(true)
	front.Wait()
	back.Stop()
}

// start starts both nodes. They find and reach each other over localhost.
func start(port uint16) (front, back gen.Node, err error) {
	certs, links, err := managers()
	if err != nil {
		return nil, nil, err
	}
	options := gen.NodeOptions{
		CertManager: links,
		Network: gen.NetworkOptions{
			Cookie: "the same on all nodes", Acceptors: []gen.AcceptorOptions{{Host: "localhost", CertManager: links}},
		},
		Log: gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{TimeFormat: time.DateTime}},
	}
	back, backErr := ergo.StartNode("back@localhost", options)
	front, frontErr := ergo.StartNode("front@localhost", options)
	if err := errors.Join(backErr, frontErr); err != nil {
		return nil, nil, err
	}
	_, counterErr := back.SpawnRegister("counter", func() gen.ProcessBehavior { return &counter{} }, gen.ProcessOptions{})
	_, gatewayErr := front.Spawn(func() gen.ProcessBehavior { return &gateway{port: port, certs: certs} }, gen.ProcessOptions{})
	return front, back, errors.Join(counterErr, gatewayErr)
}

// managers makes one for clients, who need no certificate, and one for the link, where both nodes
// show one.
func managers() (certs, links *certmanager.Manager, err error) {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		return nil, nil, err
	}
	leaf, err := ca.Generate(tlstest.Leaf{})
	if err != nil {
		return nil, nil, err
	}
	own := []tls.Certificate{leaf.Certificate()}
	certs, certsErr := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: own}})
	links, linksErr := certmanager.New(certmanager.Options{
		Source: certmanager.Static{Certificates: own, ClientCAs: ca.Pool(), RootCAs: ca.Pool()},
	})
	return certs, links, errors.Join(certsErr, linksErr)
}

// counter runs on the back node. It does not use TLS itself.
type counter struct {
	act.Actor
	lines int
}

func (c *counter) HandleCall(_ gen.PID, _ gen.Ref, request any) (any, error) {
	c.lines++
	return fmt.Sprintf("%d: %v", c.lines, request), nil
}

// gateway runs on the front node and owns the connections.
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
	if m, ok := message.(meta.MessageTCP); ok {
		answer, err := g.Call(gen.ProcessID{Name: "counter", Node: "back@localhost"}, string(m.Data))
		if err != nil {
			answer = err // the other node does not answer
		}
		// On error the client has gone.
		_ = g.SendAlias(m.ID, meta.MessageTCP{Data: fmt.Appendln(nil, answer)})
	}
	return nil
}
