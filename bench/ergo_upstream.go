//go:build upstream

package main

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"ergo.services/ergo/meta"
)

func init() {
	starters[ergoMeta], starters[ergoPool] = startErgo, startErgo
}

// startErgo serves with Ergo's own meta processes.
func startErgo(j serverJob, l net.Listener) (func(context.Context) error, error) {
	cert, err := tls.X509KeyPair(j.Cert, j.Key)
	if err != nil {
		return nil, err
	}
	// It opens the port by itself.
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if err := l.Close(); err != nil {
		return nil, err
	}
	options := meta.TCPServerOptions{Host: "127.0.0.1", Port: port, CertManager: gen.CreateCertManager(cert)}
	if j.Variant == ergoPool {
		options.ReadBufferPool = &sync.Pool{New: func() any { return make([]byte, 16<<10) }}
	}
	return nil, startNode(&ergoEcho{options: options})
}

type ergoEcho struct {
	act.Actor
	options meta.TCPServerOptions
}

func (e *ergoEcho) Init(...any) error {
	server, err := meta.CreateTCPServer(e.options)
	if err != nil {
		return err
	}
	if _, err := e.SpawnMeta(server, gen.MetaOptions{}); err != nil {
		server.Terminate(err)
		return err
	}
	return nil
}

func (e *ergoEcho) HandleMessage(_ gen.PID, message any) error {
	if m, ok := message.(meta.MessageTCP); ok {
		_ = e.SendAlias(m.ID, m)
	}
	return nil
}
