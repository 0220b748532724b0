package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
)

// ActorServer is a TCP server with an actor for each connection. Its method Process is a factory:
//
//	node.SpawnRegister("echo", meta.ActorServer{
//		Server: meta.TCPServerOptions{Port: 4433, CertManager: certs},
//		Actor:  func() gen.ProcessBehavior { return &client{} },
//	}.Process, gen.ProcessOptions{})
//
// Actor makes an actor for every accepted connection, after the handshake and before the
// MessageTCPConnect. The actor gets the messages of that connection only, so it can keep the state
// of its peer in struct fields. Connection and actor end together:
//
//   - When the actor ends, normally, by an error or by a panic, the connection ends with
//     [ErrTerminated], which wraps the actor's reason. Other connections are not affected.
//   - When the connection ends, the actor gets its MessageTCPDisconnect and should return
//     gen.TerminateReasonNormal from it. An actor that is still running after CloseTimeout is sent
//     an exit with gen.TerminateReasonShutdown.
//   - When the process of the server ends, all its connections and actors end.
//
// Messages for the server go to the process: [MessageTCPSuspend], [MessageTCPResume],
// [MessageTCPLimits] and, except as a Call, [MessageTCPDrain]. Inspecting the process inspects the
// server. The process ends when the listening socket is closed or, after a MessageTCPDrain, when
// the last connection has ended.
type ActorServer struct {
	// Server are the options of the server. ProcessPool and Route must be unset, because the actors
	// get the messages.
	Server TCPServerOptions
	// Actor makes the behavior of one actor. It runs on the process of the server, so it must not
	// block.
	Actor gen.ProcessFactory
	// ActorOptions are the options of each actor; LinkParent is always set.
	ActorOptions gen.ProcessOptions
	// Started, if set, is called once the server is listening, with the argument for [Stats] and
	// [Connections].
	Started func(server gen.MetaBehavior)
	// Alarm, if set, is called with each [MessageTCPAlarm], which is logged too. It runs on the
	// process of the server, so it must not block.
	Alarm func(MessageTCPAlarm)
}

// Process is the gen.ProcessFactory of the process that runs the server. Spawn returns an error for
// wrong options.
func (s ActorServer) Process() gen.ProcessBehavior {
	return &actorServer{options: s, actors: map[gen.Alias]gen.PID{}, connections: map[gen.PID]gen.Alias{}}
}

// actorServer is the process that owns the server, and starts and watches the actors. Only its
// callbacks use its fields.
type actorServer struct {
	act.Actor
	options     ActorServer
	listening   *tcpServer
	server      gen.Alias // the alias of listening; zero when it has ended
	draining    bool
	actors      map[gen.Alias]gen.PID // by connection; zero: its actor has ended
	connections map[gen.PID]gen.Alias // by running actor; zero: its connection has ended
	expiring    []expiringActor       // in order
}

// expiringActor is an actor whose connection has ended. It is ended at a time if it still runs.
type expiringActor struct {
	actor gen.PID
	at    time.Time
}

// actorRequest asks the process of the server for the actor of a connection.
type actorRequest struct {
	connection gen.Alias
	answer     chan<- actorAnswer // of capacity 1
}

type actorAnswer struct {
	actor gen.PID
	err   error
}

// actorRelease is sent when a connection has ended that has asked for an actor, or for which a
// draining process waits.
type actorRelease struct{ connection gen.Alias }

// actorWatch is the first message of the process: Ergo does not let a process monitor another in
// its Init.
type actorWatch struct{}

// actorExpired is sent CloseTimeout after the connection of an actor has ended. It is lost if the
// mailbox is full: then one of the messages there does the same.
type actorExpired struct{}

// Init implements act.ActorBehavior.
func (s *actorServer) Init(...any) error {
	o := &s.options
	if o.Actor == nil {
		return fmt.Errorf("%w: ActorServer.Actor: is nil; give the factory of the actors", ErrOption)
	}
	if o.Server.Route != nil || len(o.Server.ProcessPool) > 0 {
		return fmt.Errorf("%w: ActorServer.Server: Route and ProcessPool choose another process than the connection's actor; leave them unset", ErrOption)
	}
	o.ActorOptions.LinkParent = true
	server, err := CreateTCPServer(o.Server)
	if err != nil {
		return err
	}
	s.listening = server.(*tcpServer)
	s.listening.actors = true
	if err := s.Send(s.PID(), actorWatch{}); err != nil {
		return err
	}
	if s.server, err = s.SpawnMeta(server, gen.MetaOptions{}); err != nil {
		server.Terminate(err)
		return err
	}
	if o.Started != nil {
		o.Started(server)
	}
	return nil
}

// HandleMessage implements act.ActorBehavior.
func (s *actorServer) HandleMessage(from gen.PID, message any) error {
	s.endExpired()
	switch m := message.(type) {
	case actorWatch:
		return s.MonitorAlias(s.server) // on error the server has just ended; the log has the reason
	case actorRequest:
		actor, err := s.start(m.connection)
		m.answer <- actorAnswer{actor, err}
	case actorRelease:
		s.release(m.connection)
	case actorExpired:
	case gen.MessageDownPID:
		s.ended(m.PID, m.Reason)
	case gen.MessageDownAlias:
		s.server = gen.Alias{}
		if !s.draining {
			return m.Reason
		}
	case MessageTCPAlarm:
		if m.High {
			s.Log().Warning("%d connections: AlarmHigh is reached", m.Connections)
		} else {
			s.Log().Info("%d connections: down to AlarmLow", m.Connections)
		}
		if s.options.Alarm != nil {
			if err := protect("ActorServer.Alarm", func() error { s.options.Alarm(m); return nil }); err != nil {
				s.Log().Error("%s", err)
			}
		}
	case MessageTCPSuspend, MessageTCPResume, MessageTCPLimits, MessageTCPDrain:
		if _, drains := m.(MessageTCPDrain); drains {
			s.draining = true
		}
		if s.server != (gen.Alias{}) {
			_ = s.SendAlias(s.server, m) // on error it has just ended
		}
	default:
		s.Log().Warning("unknown message from %s ignored: %T", from, message)
	}
	if s.draining && s.server == (gen.Alias{}) && len(s.actors) == 0 && len(s.connections) == 0 && s.listening.empty() {
		return gen.TerminateReasonNormal
	}
	return nil
}

// HandleCall implements act.ActorBehavior.
func (s *actorServer) HandleCall(_ gen.PID, _ gen.Ref, request any) (any, error) {
	s.endExpired()
	switch request.(type) {
	case MessageTCPSuspend, MessageTCPResume, MessageTCPLimits:
		result, err := s.CallAlias(s.server, request, gen.DefaultRequestTimeout)
		if err != nil {
			return err, nil
		}
		return result, nil
	}
	return gen.ErrUnsupported, nil
}

// HandleInspect implements act.ActorBehavior: it shows what the server does, and how many actors
// there are.
func (s *actorServer) HandleInspect(from gen.PID, item ...string) map[string]string {
	m := s.listening.HandleInspect(from, item...)
	if len(item) == 0 {
		m["actors"] = strconv.Itoa(len(s.connections))
	}
	return m
}

// start starts the actor of a connection.
func (s *actorServer) start(connection gen.Alias) (actor gen.PID, err error) {
	var behavior gen.ProcessBehavior
	if err := protect("ActorServer.Actor", func() error { behavior = s.options.Actor(); return nil }); err != nil {
		return actor, err
	}
	if actor, err = s.Spawn(func() gen.ProcessBehavior { return behavior }, s.options.ActorOptions); err != nil {
		return actor, err
	}
	if err := s.MonitorPID(actor); err != nil { // it has ended already
		return actor, err
	}
	s.actors[connection], s.connections[actor] = actor, connection
	return actor, nil
}

// release gives the actor of an ended connection CloseTimeout to end.
func (s *actorServer) release(connection gen.Alias) {
	actor := s.actors[connection]
	delete(s.actors, connection)
	if actor == (gen.PID{}) {
		return
	}
	s.connections[actor] = gen.Alias{}
	wait := cmp.Or(s.options.Server.CloseTimeout, DefaultCloseTimeout)
	s.expiring = append(s.expiring, expiringActor{actor, time.Now().Add(wait)})
	if _, err := s.SendAfter(s.PID(), actorExpired{}, wait); err != nil {
		_ = s.SendExit(actor, gen.TerminateReasonShutdown)
	}
}

// endExpired ends the actors that still run CloseTimeout after the end of their connections.
func (s *actorServer) endExpired() {
	for len(s.expiring) > 0 && !time.Now().Before(s.expiring[0].at) {
		actor := s.expiring[0].actor
		s.expiring = s.expiring[1:]
		if _, running := s.connections[actor]; running {
			_ = s.SendExit(actor, gen.TerminateReasonShutdown) // on error it has just ended
		}
	}
}

// ended ends the connection of an actor that has ended.
func (s *actorServer) ended(actor gen.PID, reason error) {
	connection := s.connections[actor]
	delete(s.connections, actor)
	if connection != (gen.Alias{}) {
		s.actors[connection] = gen.PID{}
		_ = s.SendExitMeta(connection, reason) // on error it has just ended
	}
}

// startActor asks for an actor for the connection. The actor gets the messages of the connection
// from then on.
func (c *tcpConnection) startActor(deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if err := c.cancelBy(cancel); err != nil {
		return err
	}
	defer c.cancelBy(nil)
	answer := make(chan actorAnswer, 1)
	err := c.process.Send(c.process.Parent(), actorRequest{c.process.ID(), answer})
	if err == nil {
		c.actor = true
		select {
		case a := <-answer:
			c.to, err = a.actor, a.err
		case <-ctx.Done():
			return fmt.Errorf("%w: no actor for the connection within HandshakeTimeout", ErrOwnerGone)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: no actor for the connection: %w", ErrOwnerGone, err)
	}
	return nil
}

// releaseActor reports that the connection has left the server and no longer needs an actor. It
// returns false if the mailbox of the server's process is full, and is then called again. After any
// other error the process, and with it the actor, has ended.
func (c *tcpConnection) releaseActor() (released bool) {
	if !c.actor && (c.server == nil || !c.server.actors || !isClosed(c.server.closing)) {
		return true // the process does not wait for it
	}
	return !errors.Is(c.process.Send(c.process.Parent(), actorRelease{c.process.ID()}), gen.ErrProcessMailboxFull)
}
