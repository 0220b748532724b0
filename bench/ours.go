package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// frame is the size of the messages of all workloads but the bulk.
const frame = 64

// startOurs serves with the meta processes of this project and one actor for all connections.
func startOurs(j serverJob) (string, func(context.Context) error, error) {
	manager, err := newManager(j)
	if err != nil {
		return "", nil, err
	}
	options := meta.TCPServerOptions{Host: "127.0.0.1", CertManager: manager}
	switch {
	case j.Variant == oursPool:
		options.BufferPool = &sync.Pool{New: func() any { return make([]byte, 16<<10) }}
	case j.Variant == oursFramed:
		if options.Split, err = meta.FixedLength(frame); err != nil {
			return "", nil, err
		}
	case j.Pause > 0:
		options.Active = 1
	}
	actor := &echo{options: options, pause: j.Pause}
	if err := startNode(actor); err != nil {
		return "", nil, err
	}
	return meta.Stats(actor.server).Listen, manager.Reload, nil
}

func newManager(j serverJob) (*certmanager.Manager, error) {
	options := certmanager.Options{Logger: slog.New(slog.DiscardHandler)}
	if j.Dir != "" {
		options.Source = certmanager.Files{Dir: j.Dir}
		return certmanager.New(options)
	}
	cert, err := tls.X509KeyPair(j.Cert, j.Key)
	if err != nil {
		return nil, err
	}
	source := certmanager.Static{Certificates: []tls.Certificate{cert}}
	if j.ClientCA != nil {
		if source.ClientCAs, err = pool(j.ClientCA); err != nil {
			return nil, err
		}
	}
	options.Source = source
	if j.Ordered {
		options.Source = certmanager.Sources{source, certmanager.Func(waitForOrder)}
	}
	return certmanager.New(options)
}

// waitForOrder answers for orderedName when the client has given up.
func waitForOrder(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == orderedName {
		<-hello.Context().Done()
	}
	return nil, errors.New("no certificate")
}

// startNode runs an actor on a node of its own, until the process ends.
func startNode(actor gen.ProcessBehavior) error {
	var options gen.NodeOptions
	options.Network.Mode = gen.NetworkModeDisabled
	options.Log.Level = gen.LogLevelError
	options.Log.DefaultLogger.Output = io.Discard
	node, err := ergo.StartNode("bench@localhost", options)
	if err != nil {
		return err
	}
	_, err = node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{})
	return err
}

// echo sends back what it gets.
type echo struct {
	act.Actor
	options meta.TCPServerOptions
	pause   time.Duration
	server  gen.MetaBehavior // set by Init
}

func (e *echo) Init(...any) (err error) {
	if e.server, err = meta.CreateTCPServer(e.options); err != nil {
		return err
	}
	if _, err = e.SpawnMeta(e.server, gen.MetaOptions{}); err != nil {
		e.server.Terminate(err)
	}
	return err
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCP:
		if e.pause > 0 {
			time.Sleep(e.pause)
		}
		m.Recycle = true
		_ = e.SendAlias(m.ID, m) // an error means that the connection is gone, and its MessageTCPDisconnect on its way
	case meta.MessageTCPPassive:
		_ = e.SendAlias(m.ID, meta.MessageTCPActive{N: 1})
	}
	return nil
}
