package node

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// known says why an ID does not lead to a process of this run of the node; nil where it may.
func (n *node) known(of gen.Atom, creation int64) error {
	switch {
	case of == "":
		return gen.ErrProcessUnknown
	case of != n.name:
		return gen.ErrNoConnection
	case creation != n.creation:
		return gen.ErrProcessIncarnation
	}
	return nil
}

// process returns the process behind a PID. It is called with n.mu held, as the next three are.
func (n *node) process(pid gen.PID) (*process, error) {
	p, ok := n.processes[pid.ID]
	switch err := n.known(pid.Node, pid.Creation); {
	case err != nil:
		return nil, err
	case ok:
		return p, nil
	case pid.ID < firstID || pid.ID > n.lastID:
		return nil, gen.ErrProcessUnknown
	}
	return nil, gen.ErrProcessTerminated
}

func (n *node) byName(name, of gen.Atom) (*process, error) {
	if of != "" && of != n.name {
		return nil, gen.ErrNoConnection
	}
	if p, ok := n.names[name]; ok {
		return p, nil
	}
	return nil, gen.ErrProcessUnknown
}

func (n *node) byAlias(alias gen.Alias) (*unit, error) {
	u, ok := n.aliases[alias.ID[0]]
	switch err := n.known(alias.Node, alias.Creation); {
	case err != nil:
		return nil, err
	case ok:
		return u, nil
	case alias.ID[0] == 0 || alias.ID[0] > n.refID.Load():
		return nil, gen.ErrProcessUnknown
	}
	return nil, gen.ErrProcessTerminated
}

// find returns what any of the types that can be sent to leads to, and notes in the message the
// name or the alias that was used.
func (n *node) find(to any, m *mailbox.Message) (*unit, error) {
	var p *process
	var err error
	switch to := to.(type) {
	case gen.PID:
		p, err = n.process(to)
	case gen.Alias:
		m.Alias = to
		return n.byAlias(to)
	case gen.ProcessID:
		m.Name = to.Name
		p, err = n.byName(to.Name, to.Node)
	case gen.Atom:
		m.Name = to
		p, err = n.byName(to, "")
	case string:
		m.Name = gen.Atom(to)
		p, err = n.byName(m.Name, "")
	default:
		err = errTarget(to)
	}
	if err != nil {
		return nil, err
	}
	return &p.unit, nil
}

func errTarget(to any) error {
	return fmt.Errorf("target of type %v: %w", reflect.TypeOf(to), gen.ErrUnsupported)
}

// meta returns the meta process behind an alias, unless it has ended.
func (n *node) meta(alias gen.Alias) (*meta, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	u, err := n.byAlias(alias)
	if errors.Is(err, gen.ErrNoConnection) {
		return nil, err
	}
	if err == nil && u.Reason() == nil {
		if m, ok := u.kind.(*meta); ok {
			return m, nil
		}
	}
	return nil, gen.ErrMetaUnknown
}

// send delivers a message to what a target leads to.
func (n *node) send(to any, m *mailbox.Message, priority gen.MessagePriority) error {
	if err := checkPriority(priority); err != nil {
		return err
	}
	n.mu.RLock()
	u, err := n.find(to, m)
	n.mu.RUnlock()
	if err != nil {
		return err
	}
	if err = u.push(m, priority, false); err == gen.ErrProcessMailboxFull {
		return u.kind.full(m, priority)
	}
	return err
}

// full hands what did not fit into the mailbox to the fallback process.
func (p *process) full(m *mailbox.Message, priority gen.MessagePriority) error {
	if !p.fallback.Enable || m.Kind != mailbox.Regular {
		return gen.ErrProcessMailboxFull
	}
	wrapped := gen.MessageFallback{PID: p.pid, Tag: p.fallback.Tag, Message: m.Payload}
	m = &mailbox.Message{From: m.From, Payload: wrapped}
	p.node.mu.RLock()
	u, err := p.node.find(p.fallback.Name, m)
	p.node.mu.RUnlock()
	// The fallback process has no fallback itself: it might be a circle.
	if err != nil || u == &p.unit || u.push(m, priority, false) != nil {
		return gen.ErrProcessMailboxFull
	}
	return nil
}

// sendAs sends for the process itself, or for one of its meta processes.
func (p *process) sendAs(by *unit, to any, m *mailbox.Message, priority gen.MessagePriority) error {
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	m.From = p.pid
	if err := p.node.send(to, m, priority); err != nil {
		return err
	}
	by.sent.Add(1)
	return nil
}

// exit asks the process to end, before it handles any other message.
func (p *process) exit(from gen.PID, reason error) error {
	exit := gen.MessageExitPID{PID: from, Reason: reason}
	return p.push(&mailbox.Message{Kind: mailbox.Exit, From: from, Payload: exit}, gen.MessagePriorityMax, true)
}

func (p *process) SendWithPriority(to any, message any, priority gen.MessagePriority) error {
	return p.sendAs(&p.unit, to, &mailbox.Message{Payload: message}, priority)
}

func (p *process) Send(to any, message any) error {
	return p.SendWithPriority(to, message, p.SendPriority())
}

func (p *process) SendImportant(to any, message any) error           { return p.Send(to, message) }
func (p *process) SendPID(to gen.PID, message any) error             { return p.Send(to, message) }
func (p *process) SendProcessID(to gen.ProcessID, message any) error { return p.Send(to, message) }
func (p *process) SendAlias(to gen.Alias, message any) error         { return p.Send(to, message) }
func (p *process) SendPriority() gen.MessagePriority                 { return gen.MessagePriority(p.priority.Load()) }

func (p *process) SetSendPriority(priority gen.MessagePriority) error {
	if err := checkPriority(priority); err != nil {
		return err
	}
	p.priority.Store(int32(priority))
	return nil
}

func (p *process) SendAfter(to any, message any, after time.Duration) (gen.CancelFunc, error) {
	if p.gone.Load() {
		return nil, gen.ErrProcessTerminated
	}
	switch to.(type) {
	case gen.PID, gen.Alias, gen.ProcessID, gen.Atom, string:
	default:
		return nil, errTarget(to)
	}
	priority := p.SendPriority()
	return time.AfterFunc(after, func() { _ = p.SendWithPriority(to, message, priority) }).Stop, nil
}

func (p *process) SendExit(to gen.PID, reason error) error {
	switch {
	case p.gone.Load():
		return gen.ErrProcessTerminated
	case to == p.pid, to == p.parent:
		return gen.ErrNotAllowed
	case reason == nil:
		return gen.ErrIncorrect
	}
	p.node.mu.RLock()
	target, err := p.node.process(to)
	p.node.mu.RUnlock()
	if err != nil {
		return err
	}
	return target.exit(p.pid, reason)
}

func (p *process) SendExitMeta(alias gen.Alias, reason error) error {
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if reason == nil {
		return gen.ErrIncorrect
	}
	m, err := p.node.meta(alias)
	if err == nil {
		m.end(reason)
	}
	return err
}
