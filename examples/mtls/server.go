package main

import (
	"net"
	"strconv"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// echo is an actor that owns a TLS server and answers each client with its own bytes.
type echo struct {
	act.Actor
	server  gen.MetaBehavior
	clients chan<- meta.Peer // hears who has connected; nil where nobody wants to know
}

// startEcho opens the port, spawns the echo actor and returns its server.
func startEcho(node gen.Node, addr string, manager gen.CertManager, clients chan<- meta.Peer) (gen.MetaBehavior, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: host, Port: uint16(number), CertManager: manager})
	if err != nil {
		return nil, err
	}
	_, err = node.Spawn(func() gen.ProcessBehavior { return &echo{server: server, clients: clients} }, gen.ProcessOptions{})
	if err != nil {
		server.Terminate(err) // frees the port
		return nil, err
	}
	return server, nil
}

// Init makes the server this actor's. What follows comes as messages.
func (e *echo) Init(...any) error {
	_, err := e.SpawnMeta(e.server, gen.MetaOptions{})
	return err
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCPConnect: // the handshake is complete, the peer is verified
		e.Log().Info("%s connected over %s", m.Peer, m.Peer.Version)
		if e.clients != nil {
			e.clients <- m.Peer
		}
	case meta.MessageTCP:
		// On error the client has gone: its Disconnect is on the way.
		_ = e.SendAlias(m.ID, m)
	case meta.MessageTCPDisconnect:
		e.Log().Info("%s disconnected: %s", m.ID, m.Reason)
	}
	return nil
}
