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
	options meta.TCPServerOptions
	address chan<- string // gets the address that was bound
}

// startEcho spawns the echo actor and returns the address that it listens on.
func startEcho(node gen.Node, addr string, manager gen.CertManager) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return "", err
	}
	address := make(chan string, 1)
	actor := &echo{address: address, options: meta.TCPServerOptions{
		Host: host, Port: uint16(number), CertManager: manager,
	}}
	if _, err := node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{}); err != nil {
		return "", err
	}
	return <-address, nil
}

// Init opens the port. What follows comes as messages.
func (e *echo) Init(...any) error {
	server, err := meta.CreateTCPServer(e.options)
	if err != nil {
		return err
	}
	id, err := e.SpawnMeta(server, gen.MetaOptions{})
	if err != nil {
		server.Terminate(err) // frees the port
		return err
	}
	return e.Send(e.PID(), id) // a process can't inspect before its Init has returned
}

func (e *echo) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case gen.Alias:
		values, err := e.InspectMeta(m)
		if err != nil {
			return err
		}
		e.address <- values["listen"]
	case meta.MessageTCPConnect: // the handshake is complete, the peer is proven
		e.Log().Info("%s connected over %s", m.Peer, m.Peer.Version)
	case meta.MessageTCP:
		// An error says that the client has gone meanwhile: its Disconnect is on the way.
		_ = e.SendAlias(m.ID, m)
	case meta.MessageTCPDisconnect:
		e.Log().Info("%s disconnected: %s", m.ID, m.Reason)
	}
	return nil
}
