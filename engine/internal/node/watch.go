package node

import (
	"cmp"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// watch is a link or a monitor.
type watch struct {
	target any  // a gen.PID, gen.Alias or gen.ProcessID with its node
	link   bool // told by an exit rather than a message
}

// tell tells those who watch a target that it has just become unknown. It is called with the node's
// mutex held, as unwatch is.
func (n *node) tell(target any, from gen.PID, exit, down any) {
	w := watch{target, true}
	for p := range n.watchers[w] {
		p.unwatch(w)
		_ = p.push(&mailbox.Message{Kind: mailbox.Exit, From: from, Payload: exit}, gen.MessagePriorityMax, true)
	}
	w.link = false
	for p := range n.watchers[w] {
		p.unwatch(w)
		_ = p.push(&mailbox.Message{From: from, Payload: down}, gen.MessagePriorityHigh, true)
	}
}

func (p *process) unwatch(w watch) {
	delete(p.watching, w)
	delete(p.node.watchers[w], p)
	if len(p.node.watchers[w]) == 0 {
		delete(p.node.watchers, w)
	}
}

// change adds or removes a link or monitor.
func (p *process) change(target any, link, add bool) error {
	n := p.node
	var id gen.ProcessID
	switch t := target.(type) {
	case gen.PID, gen.Alias:
	case gen.ProcessID:
		id = t
	case gen.Atom:
		id.Name = t
	case string:
		id.Name = gen.Atom(t)
	default:
		return errTarget(target)
	}
	if id != (gen.ProcessID{}) {
		if link {
			return errTarget(target)
		}
		id.Node = cmp.Or(id.Node, n.name) // one watch for all forms of a name
		target = id
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	w := watch{target, link}
	_, exists := p.watching[w]
	switch _, err := n.target(target, &mailbox.Message{}); {
	case p.gone.Load():
		return gen.ErrProcessTerminated
	case exists && add:
		return gen.ErrTargetExist
	case exists:
		p.unwatch(w)
		return nil
	case !add:
		return gen.ErrTargetUnknown
	case err != nil:
		return err
	}
	if n.watchers[w] == nil {
		n.watchers[w] = make(map[*process]struct{})
	}
	n.watchers[w][p], p.watching[w] = struct{}{}, struct{}{}
	return nil
}

// ask is change for the process itself, which Ergo lets do no such thing in its Init.
func (p *process) ask(target any, link, add bool) error {
	if p.State() == gen.ProcessStateInit {
		return gen.ErrNotAllowed
	}
	return p.change(target, link, add)
}

func (p *process) Link(target any) error                { return p.ask(target, true, true) }
func (p *process) Unlink(target any) error              { return p.ask(target, true, false) }
func (p *process) LinkPID(target gen.PID) error         { return p.Link(target) }
func (p *process) UnlinkPID(target gen.PID) error       { return p.Unlink(target) }
func (p *process) LinkAlias(target gen.Alias) error     { return p.Link(target) }
func (p *process) UnlinkAlias(target gen.Alias) error   { return p.Unlink(target) }
func (p *process) Monitor(target any) error             { return p.ask(target, false, true) }
func (p *process) Demonitor(target any) error           { return p.ask(target, false, false) }
func (p *process) MonitorPID(pid gen.PID) error         { return p.Monitor(pid) }
func (p *process) DemonitorPID(pid gen.PID) error       { return p.Demonitor(pid) }
func (p *process) MonitorAlias(alias gen.Alias) error   { return p.Monitor(alias) }
func (p *process) DemonitorAlias(alias gen.Alias) error { return p.Demonitor(alias) }
