package node

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// byID returns what has the ID in a PID or an alias.
func (n *node) byID(of gen.Atom, creation int64, id uint64) (*unit, error) {
	u, ok := n.units[id]
	switch {
	case of == "":
		return nil, gen.ErrProcessUnknown
	case of != n.name:
		return nil, gen.ErrNoConnection
	case creation != n.creation:
		return nil, gen.ErrProcessIncarnation
	case ok:
		return u, nil
	case id <= maxID || id > n.lastID.Load():
		return nil, gen.ErrProcessUnknown
	}
	return nil, gen.ErrProcessTerminated
}

// target returns what any of the types that can be sent to leads to, and notes in the message the
// name or the alias that was used. It is called with the node's mutex held.
func (n *node) target(to any, m *mailbox.Message) (*unit, error) {
	var name, node gen.Atom
	switch to := to.(type) {
	case gen.PID:
		return n.byID(to.Node, to.Creation, to.ID)
	case gen.Alias:
		u, err := n.byID(to.Node, to.Creation, to.ID[0])
		if err == nil {
			if _, ok := u.kind.(*process); ok {
				m.To = to
			}
		}
		return u, err
	case gen.ProcessID:
		name, node = to.Name, to.Node
	case gen.Atom:
		name = to
	case string:
		name = gen.Atom(to)
	default:
		return nil, errTarget(to)
	}
	if node != "" && node != n.name {
		return nil, gen.ErrNoConnection
	}
	if p, ok := n.names[name]; ok {
		m.To = name
		return &p.unit, nil
	}
	return nil, gen.ErrProcessUnknown
}

func errTarget(to any) error {
	return fmt.Errorf("target of type %v: %w", reflect.TypeOf(to), gen.ErrUnsupported)
}

// get is target for a node that has not ended.
func (n *node) get(to any, m *mailbox.Message) (*unit, error) {
	if n.ended() {
		return nil, gen.ErrNodeTerminated
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.target(to, m)
}

func (n *node) find(pid gen.PID) (*process, error) {
	u, err := n.get(pid, &mailbox.Message{})
	if err != nil {
		return nil, err
	}
	if p, ok := u.kind.(*process); ok {
		return p, nil
	}
	return nil, gen.ErrProcessUnknown
}

// meta returns the meta process behind an alias, unless it has ended.
func (n *node) meta(alias gen.Alias) (*meta, error) {
	u, err := n.get(alias, &mailbox.Message{})
	if errors.Is(err, gen.ErrNoConnection) || errors.Is(err, gen.ErrNodeTerminated) {
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
	u, err := n.get(to, m)
	if err != nil {
		return err
	}
	if p, ok := u.kind.(*process); ok && p.pid == m.From && m.Kind != mailbox.Regular {
		return gen.ErrNotAllowed // the caller would wait for itself
	}
	if err = u.push(m, priority, false); err == gen.ErrProcessMailboxFull {
		return u.kind.full(m, priority)
	}
	return err
}

// full hands what did not fit into the mailbox to the fallback process.
func (p *process) full(m *mailbox.Message, priority gen.MessagePriority) error {
	wrapped := gen.MessageFallback{PID: p.pid, Tag: p.fallback.Tag, Message: m.Payload}
	m = &mailbox.Message{Kind: m.Kind, From: m.From, Payload: wrapped}
	u, err := p.node.get(p.fallback.Name, m)
	// The fallback process has no fallback itself: it might be a circle.
	if !p.fallback.Enable || m.Kind != mailbox.Regular || err != nil || u == &p.unit || u.push(m, priority, false) != nil {
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

// exit asks a process to end, before it handles any other message.
func (n *node) exit(from, to gen.PID, reason error) error {
	if reason == nil {
		return gen.ErrIncorrect
	}
	p, err := n.find(to)
	if err != nil {
		return err
	}
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

func (p *process) SendAfter(to any, message any, after time.Duration) (gen.CancelFunc, error) {
	if p.gone.Load() {
		return nil, gen.ErrProcessTerminated
	}
	if _, err := p.node.get(to, &mailbox.Message{}); errors.Is(err, gen.ErrUnsupported) {
		return nil, err
	}
	priority := p.SendPriority()
	return time.AfterFunc(after, func() { _ = p.SendWithPriority(to, message, priority) }).Stop, nil
}

func (p *process) SendPriority() gen.MessagePriority { return gen.MessagePriority(p.priority.Load()) }

func (p *process) SetSendPriority(priority gen.MessagePriority) error {
	err := checkPriority(priority)
	if err == nil {
		p.priority.Store(int32(priority))
	}
	return err
}

func (p *process) SendExit(to gen.PID, reason error) error {
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if to == p.pid || to == p.parent {
		return gen.ErrNotAllowed
	}
	return p.node.exit(p.pid, to, reason)
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
