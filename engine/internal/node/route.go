package node

import (
	"errors"
	"fmt"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// address is where a name or an alias leads to. For messages to a PID one is
// made on the spot, without the mailbox.Address that callbacks ask for.
type address struct {
	unit    *unit
	process *process // exactly one of process and meta is set
	meta    *meta
	to      *mailbox.Address
}

// process returns the process behind a PID.
func (n *node) process(pid gen.PID) (*process, error) {
	switch {
	case pid.Node == "":
		return nil, gen.ErrProcessUnknown
	case pid.Node != n.name:
		return nil, gen.ErrNoConnection
	case pid.Creation != n.creation:
		return nil, gen.ErrProcessIncarnation
	}
	if p, ok := n.processes.Load(pid.ID); ok {
		return p.(*process), nil
	}
	if pid.ID < firstProcessID || pid.ID > n.processIDs.Load() {
		return nil, gen.ErrProcessUnknown
	}
	return nil, gen.ErrProcessTerminated
}

func (n *node) byPID(pid gen.PID) (address, error) {
	p, err := n.process(pid)
	if err != nil {
		return address{}, err
	}
	return address{unit: &p.unit, process: p}, nil
}

func (n *node) byName(id gen.ProcessID) (address, error) {
	if id.Node != "" && id.Node != n.name {
		return address{}, gen.ErrNoConnection
	}
	a, ok := n.names.Load(id.Name)
	if !ok {
		return address{}, gen.ErrProcessUnknown
	}
	return *a.(*address), nil
}

func (n *node) byAlias(alias gen.Alias) (address, error) {
	switch {
	case alias.Node == "":
		return address{}, gen.ErrProcessUnknown
	case alias.Node != n.name:
		return address{}, gen.ErrNoConnection
	case alias.Creation != n.creation:
		return address{}, gen.ErrProcessIncarnation
	}
	if a, ok := n.aliases.Load(alias.ID[0]); ok {
		return *a.(*address), nil
	}
	if alias.ID[0] == 0 || alias.ID[0] > n.aliasIDs.Load() {
		return address{}, gen.ErrProcessUnknown
	}
	return address{}, gen.ErrProcessTerminated
}

func (n *node) newAlias() gen.Alias {
	return gen.Alias{Node: n.name, Creation: n.creation, ID: [3]uint64{n.aliasIDs.Add(1)}}
}

// meta returns the meta process behind an alias.
func (n *node) meta(alias gen.Alias) (*meta, error) {
	a, err := n.byAlias(alias)
	switch {
	case errors.Is(err, gen.ErrNoConnection):
		return nil, err
	case err != nil || a.meta == nil:
		return nil, gen.ErrMetaUnknown
	}
	return a.meta, nil
}

// find returns what any of the types that can be sent to leads to.
func (n *node) find(to any) (address, error) {
	switch to := to.(type) {
	case gen.PID:
		return n.byPID(to)
	case gen.Alias:
		return n.byAlias(to)
	case gen.ProcessID:
		return n.byName(to)
	case gen.Atom:
		return n.byName(gen.ProcessID{Name: to})
	case string:
		return n.byName(gen.ProcessID{Name: gen.Atom(to)})
	}
	return address{}, errTarget(to)
}

func errTarget(to any) error {
	return fmt.Errorf("target of type %T: %w", to, gen.ErrUnsupported)
}

func (n *node) send(from gen.PID, to any, message any, priority gen.MessagePriority) error {
	if err := checkPriority(priority); err != nil {
		return err
	}
	a, err := n.find(to)
	if err != nil {
		return err
	}
	return n.deliver(a, mailbox.Message{From: from.ID, Payload: message}, priority)
}

// deliver puts a message into a mailbox and sees to it that it is handled.
func (n *node) deliver(a address, m mailbox.Message, priority gen.MessagePriority) error {
	m.To = a.to
	wake, err := a.unit.box.Push(&m, priority)
	switch {
	case wake:
		n.workers.run(a.unit)
		return nil
	case err == nil:
		return nil
	case err == mailbox.ErrClosed:
		return gen.ErrProcessTerminated
	case a.meta != nil:
		return gen.ErrMetaMailboxFull
	}
	return n.fallBack(a.process, m, priority)
}

// fallBack hands what did not fit into the mailbox of p to its fallback process.
func (n *node) fallBack(p *process, m mailbox.Message, priority gen.MessagePriority) error {
	if !p.fallback.Enable || m.Kind != mailbox.Regular {
		return gen.ErrProcessMailboxFull
	}
	a, err := n.byName(gen.ProcessID{Name: p.fallback.Name})
	if err != nil || a.process == p {
		return gen.ErrProcessMailboxFull
	}
	m.Payload = gen.MessageFallback{PID: p.pid, Tag: p.fallback.Tag, Message: m.Payload}
	m.To = a.to
	wake, err := a.unit.box.Push(&m, priority)
	if wake {
		n.workers.run(a.unit)
	}
	if err != nil {
		return gen.ErrProcessMailboxFull // no fallback of the fallback: it might be a circle
	}
	return nil
}

// notify delivers what the engine itself has to say, whatever the mailbox's limit.
func (p *process) notify(kind mailbox.Kind, from gen.PID, payload any, priority gen.MessagePriority) error {
	wake, err := p.box.Force(&mailbox.Message{Kind: kind, From: from.ID, Payload: payload}, priority)
	if wake {
		p.node.workers.run(&p.unit)
	}
	if err != nil {
		return gen.ErrProcessTerminated
	}
	return nil
}

// exit asks the process to end, before it handles any other message.
func (p *process) exit(from gen.PID, reason error) error {
	exit := gen.MessageExitPID{PID: from, Reason: reason}
	return p.notify(mailbox.Exit, from, exit, gen.MessagePriorityMax)
}
