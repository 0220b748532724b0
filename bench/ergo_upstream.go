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

	// On Ergo's engine this project's code has to reach nine tenths of what a prototype reached
	// there.
	bars = []bar{
		{pipelined, oursPool, efficiency, 0.9 * 10.8, key{}},
		{flushed, oursPool, efficiency, 0.9 * 1.08, key{}},
		{rr64, oursPool, efficiency, 0.9 * 0.65, key{}},
		{rr512, oursPool, efficiency, 0.9 * 0.68, key{}},
		{rr512, oursPool, p99, 1.54 / 0.9, key{}},
		{rr1, oursPool, efficiency, 0.9 * 0.58, key{}},
		{bulk, oursPool, efficiency, 0.9 * 0.90, key{}},
		{full, ours, efficiency, 0.9 * 0.97, key{}},
		{resumed, ours, efficiency, 0.9 * 0.94, key{}},
		{idleAfter, ours, memory, 0.53 / 0.9, key{}},
		{idleBefore, ours, memory, 0.62 / 0.9, key{}},
	}
}

// startErgo serves with Ergo's own meta processes.
func startErgo(j serverJob) (string, func(context.Context) error, error) {
	cert, err := tls.X509KeyPair(j.Cert, j.Key)
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // it needs the number of a free port
	if err != nil {
		return "", nil, err
	}
	addr := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	options := meta.TCPServerOptions{Host: "127.0.0.1", Port: uint16(addr.Port), CertManager: gen.CreateCertManager(cert)}
	if j.Variant == ergoPool {
		options.ReadBufferPool = &sync.Pool{New: func() any { return make([]byte, 16<<10) }}
	}
	return addr.String(), nil, startNode(&ergoEcho{options: options})
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
		_ = e.SendAlias(m.ID, message)
	}
	return nil
}
