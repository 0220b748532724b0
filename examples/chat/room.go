package main

import (
	"fmt"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// member is the actor of one connection. It speaks to the room for its client, and the other way.
type member struct {
	act.Actor
	connection gen.Alias
	name       string
}

func (m *member) HandleMessage(_ gen.PID, message any) error {
	switch v := message.(type) {
	case meta.MessageTCPConnect:
		m.connection, m.name = v.ID, v.TLS.PeerCertificates[0].Subject.CommonName // verified by the handshake
		return m.Send(roomName, join{m.name})
	case meta.MessageTCP:
		return m.Send(roomName, says{fmt.Sprintf("%s: %s", m.name, v.Data)})
	case line: // whoever does not read and has a hundred lines waiting misses it
		_ = m.SendAlias(m.connection, meta.MessageTCP{Data: v})
	case meta.MessageTCPPassive:
		return m.Send(roomName, caughtUp{})
	case caughtUp: // the room has said all lines so far
		_ = m.SendAlias(m.connection, meta.MessageTCPActive{N: 10})
	case meta.MessageTCPDisconnect:
		_ = m.Send(roomName, leave{v.Reason})
		return gen.TerminateReasonNormal
	}
	return nil
}

const roomName = gen.Atom("room")

// What members say to the room, and it to them.
type (
	join     struct{ name string }
	leave    struct{ why error }
	says     struct{ text string }
	line     []byte
	caughtUp struct{} // goes to the room and back
)

// room is an actor that knows everybody who is there.
type room struct {
	act.Actor
	members map[gen.PID]string // their names
}

func (r *room) HandleMessage(from gen.PID, message any) error {
	switch m := message.(type) {
	case join:
		if err := r.MonitorPID(from); err != nil {
			return nil // it has gone already
		}
		r.members[from] = m.name
		r.say("* %s is here", m.name)
	case says:
		r.say("%s", m.text)
	case caughtUp:
		_ = r.Send(from, m)
	case leave:
		r.part(from, m.why)
	case gen.MessageDownPID:
		if m.Reason != gen.TerminateReasonNormal { // else its leave says why
			r.part(m.PID, m.Reason)
		}
	}
	return nil
}

func (r *room) part(member gen.PID, why error) {
	if name, here := r.members[member]; here {
		delete(r.members, member)
		r.say("* %s has gone (%s)", name, why)
	}
}

// say writes a line to everybody.
func (r *room) say(format string, args ...any) {
	text := line(fmt.Appendf(nil, format+"\n", args...))
	for member := range r.members {
		_ = r.Send(member, text)
	}
}
