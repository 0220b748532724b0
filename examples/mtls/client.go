package main

import (
	"errors"
	"fmt"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// client is an actor with one connection. It tells the demonstration what happens to it.
type client struct {
	act.Actor
	options meta.TCPConnectionOptions
	events  chan any
	id      gen.Alias
}

type say string

func (c *client) Init(...any) error {
	connection, err := meta.CreateTCPConnection(c.options)
	if err != nil {
		return err
	}
	if c.id, err = c.SpawnMeta(connection, gen.MetaOptions{}); err != nil {
		connection.Terminate(err)
	}
	return err
}

func (c *client) HandleMessage(_ gen.PID, message any) error {
	if text, ok := message.(say); ok {
		return c.SendAlias(c.id, meta.MessageTCP{Data: []byte(text)})
	}
	c.events <- message
	return nil
}

// session is a client actor as the demonstration sees it.
type session struct {
	node   gen.Node
	pid    gen.PID
	events chan any
	peer   meta.Peer
}

var errTooLong = errors.New("nothing happened for 5 s")

// next waits for the client's next message.
func (s *session) next() (any, error) {
	select {
	case event := <-s.events:
		return event, nil
	case <-time.After(5 * time.Second):
		return nil, errTooLong
	}
}

// connect starts a client actor and waits until its handshake is complete.
func (d *demo) connect(manager *certmanager.Manager) (*session, error) {
	actor := &client{events: make(chan any, 16), options: meta.TCPConnectionOptions{Port: d.port, CertManager: manager}}
	pid, err := d.node.Spawn(func() gen.ProcessBehavior { return actor }, gen.ProcessOptions{})
	if err != nil {
		return nil, err
	}
	s := &session{node: d.node, pid: pid, events: actor.events}
	event, err := s.next()
	if err != nil {
		return nil, err
	}
	switch e := event.(type) {
	case meta.MessageTCPConnect:
		s.peer = e.Peer
		return s, nil
	case meta.MessageTCPDisconnect:
		return nil, e.Reason
	}
	return nil, fmt.Errorf("unexpected %T", event)
}

// echo says something and expects to hear it back.
func (s *session) echo(text string) error {
	if err := s.node.Send(s.pid, say(text)); err != nil {
		return err
	}
	event, err := s.next()
	if err != nil {
		return err
	}
	if m, ok := event.(meta.MessageTCP); !ok || string(m.Data) != text {
		return fmt.Errorf("no echo, but %v", event)
	}
	show("echo: %q", text)
	return nil
}

// ended waits for the end of the connection and gives its reason.
func (s *session) ended() (reason, err error) {
	for {
		event, err := s.next()
		if err != nil {
			return nil, err
		}
		if m, ok := event.(meta.MessageTCPDisconnect); ok {
			return m.Reason, nil
		}
	}
}
