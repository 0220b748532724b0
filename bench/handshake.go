package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/ergotls/ergotls/tlstest"
)

// handshakes is a workload whose operation is a connection: TCP, TLS, one echo, close.
func handshakes(row string, resume bool) func(*cell) (map[string]measure, error) {
	return func(c *cell) (map[string]measure, error) {
		m, err := c.measure(c.connecting(resume))
		return map[string]measure{row: m}, err
	}
}

func (c *cell) connecting(resume bool) []func() (int, error) {
	var operations []func() (int, error)
	for range 8 {
		config := c.clientConfig()
		if resume {
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		first := true
		operations = append(operations, func() (int, error) {
			l, err := c.dial(config, frame)
			if err != nil {
				return 0, err
			}
			if !first && l.ConnectionState().DidResume != resume {
				return 0, errors.New("not the kind of handshake that was to be measured")
			}
			first = false
			return 1, l.Close()
		})
	}
	return operations
}

const (
	// orderedName is a name whose certificate the server waits for.
	orderedName = "ordered.test"
	// orderedClients is how many clients ask for it.
	orderedClients = 50
)

// orderCertificate has the server wait for one certificate, as for an order that a CA does not
// answer.
func orderCertificate(_ *cell, j *serverJob) (func(), error) {
	j.Ordered = true
	return func() {}, nil
}

// beside measures full handshakes for a name in service, first alone and then beside clients that
// wait for the certificate of another name.
func beside(c *cell) (map[string]measure, error) {
	operations := c.connecting(false)
	without, err := c.measure(operations)
	if err != nil {
		return nil, err
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	ended := make(chan error, orderedClients)
	for range orderedClients {
		conn, err := net.Dial("tcp", c.addr)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		config := c.clientConfig()
		config.ServerName = orderedName
		waiting.Go(func() { ended <- tls.Client(conn, config).Handshake() })
	}
	with, err := c.measure(operations)
	if err != nil {
		return nil, err
	}
	select {
	case err := <-ended:
		return nil, fmt.Errorf("a handshake that was to wait has ended: %v", err)
	default:
	}
	without.Mem, with.Mem = 0, 0
	return map[string]measure{noOrder: without, whileOrder: with}, nil
}

// askForCertificate makes client certificates mandatory, which a resumed session is checked for
// again.
func askForCertificate(c *cell, j *serverJob) (func(), error) {
	pair, err := c.ca.Generate(tlstest.Leaf{Names: []string{"client.test"}, Usage: tlstest.ClientOnly})
	if err != nil {
		return nil, err
	}
	j.ClientCA = c.ca.PEM()
	c.clientCert = []tls.Certificate{pair.Certificate()}
	return func() {}, nil
}
