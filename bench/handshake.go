package main

import (
	"crypto/tls"
	"errors"

	"github.com/ergotls/ergotls/tlstest"
)

// handshakes is a workload whose operation is a connection: TCP, TLS, one echo, close.
func handshakes(row string, resume bool) func(*cell) (map[string]measure, error) {
	return func(c *cell) (map[string]measure, error) {
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
		m, err := c.measure(operations)
		return map[string]measure{row: m}, err
	}
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
