package node

import (
	"sync"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// watch is one wish to be told of an end.
type watch struct {
	target any  // a gen.PID, gen.Alias or gen.ProcessID with its node
	link   bool // told by an exit rather than a message
}

// watches are the links and monitors of a node, by both ends: the end of either
// removes them.
type watches struct {
	mu        sync.Mutex
	byTarget  map[watch]map[*process]struct{}
	byWatcher map[*process]map[watch]struct{}
}

func (ws *watches) init() {
	ws.byTarget = make(map[watch]map[*process]struct{})
	ws.byWatcher = make(map[*process]map[watch]struct{})
}

func (ws *watches) add(p *process, w watch) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if p.gone.Load() { // set before forget
		return gen.ErrProcessTerminated
	}
	if _, exists := ws.byWatcher[p][w]; exists {
		return gen.ErrTargetExist
	}
	if ws.byTarget[w] == nil {
		ws.byTarget[w] = make(map[*process]struct{})
	}
	ws.byTarget[w][p] = struct{}{}
	if ws.byWatcher[p] == nil {
		ws.byWatcher[p] = make(map[watch]struct{})
	}
	ws.byWatcher[p][w] = struct{}{}
	return nil
}

func (ws *watches) remove(p *process, w watch) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	_, exists := ws.byWatcher[p][w]
	ws.drop(p, w)
	return exists
}

// forget removes what p watches.
func (ws *watches) forget(p *process) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.byWatcher[p] {
		ws.drop(p, w)
	}
}

// take removes and returns those who watch a target in one of the two ways.
func (ws *watches) take(w watch) []*process {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	var watchers []*process
	for p := range ws.byTarget[w] {
		watchers = append(watchers, p)
	}
	for _, p := range watchers {
		ws.drop(p, w)
	}
	return watchers
}

func (ws *watches) drop(p *process, w watch) {
	delete(ws.byTarget[w], p)
	if len(ws.byTarget[w]) == 0 {
		delete(ws.byTarget, w)
	}
	delete(ws.byWatcher[p], w)
	if len(ws.byWatcher[p]) == 0 {
		delete(ws.byWatcher, p)
	}
}

// watch registers first and then looks whether the target is alive; an end removes
// the target first and then looks who watches. So one of the two is noticed: the
// watcher gets either an error or exactly one message.
func (p *process) watch(w watch) error {
	if err := p.node.watches.add(p, w); err != nil {
		return err
	}
	_, err := p.node.find(w.target)
	if err != nil && p.node.watches.remove(p, w) {
		return err
	}
	return nil
}

func (p *process) unwatch(w watch) error {
	if !p.node.watches.remove(p, w) {
		return gen.ErrTargetUnknown
	}
	return nil
}

// downPID tells of the end of a process.
func (n *node) downPID(pid gen.PID, reason error) {
	n.down(pid, pid, gen.MessageExitPID{PID: pid, Reason: reason}, gen.MessageDownPID{PID: pid, Reason: reason})
}

// downAlias tells of the end of a meta process or of an alias of the owner.
func (n *node) downAlias(alias gen.Alias, owner gen.PID, reason error) {
	n.down(alias, owner, gen.MessageExitAlias{Alias: alias, Reason: reason}, gen.MessageDownAlias{Alias: alias, Reason: reason})
}

// downName tells that a name no longer leads to the owner.
func (n *node) downName(name gen.Atom, owner gen.PID, reason error) {
	id := gen.ProcessID{Name: name, Node: n.name}
	n.down(id, owner, nil, gen.MessageDownProcessID{ProcessID: id, Reason: reason})
}

func (n *node) down(target any, from gen.PID, exit, message any) {
	for _, p := range n.watches.take(watch{target: target, link: true}) {
		_ = p.notify(mailbox.Exit, from, exit, gen.MessagePriorityMax)
	}
	for _, p := range n.watches.take(watch{target: target}) {
		_ = p.notify(mailbox.Regular, from, message, gen.MessagePriorityHigh)
	}
}

func (p *process) LinkPID(target gen.PID) error         { return p.watch(watch{target, true}) }
func (p *process) UnlinkPID(target gen.PID) error       { return p.unwatch(watch{target, true}) }
func (p *process) LinkAlias(target gen.Alias) error     { return p.watch(watch{target, true}) }
func (p *process) UnlinkAlias(target gen.Alias) error   { return p.unwatch(watch{target, true}) }
func (p *process) MonitorPID(pid gen.PID) error         { return p.watch(watch{pid, false}) }
func (p *process) DemonitorPID(pid gen.PID) error       { return p.unwatch(watch{pid, false}) }
func (p *process) MonitorAlias(alias gen.Alias) error   { return p.watch(watch{alias, false}) }
func (p *process) DemonitorAlias(alias gen.Alias) error { return p.unwatch(watch{alias, false}) }

func (p *process) Link(target any) error {
	w, err := linkTo(target)
	if err != nil {
		return err
	}
	return p.watch(w)
}

func (p *process) Unlink(target any) error {
	w, err := linkTo(target)
	if err != nil {
		return err
	}
	return p.unwatch(w)
}

func (p *process) Monitor(target any) error {
	w, err := p.monitorOf(target)
	if err != nil {
		return err
	}
	return p.watch(w)
}

func (p *process) Demonitor(target any) error {
	w, err := p.monitorOf(target)
	if err != nil {
		return err
	}
	return p.unwatch(w)
}

func linkTo(target any) (watch, error) {
	switch target.(type) {
	case gen.PID, gen.Alias:
		return watch{target, true}, nil
	}
	return watch{}, errTarget(target)
}

func (p *process) monitorOf(target any) (watch, error) {
	var id gen.ProcessID
	switch target := target.(type) {
	case gen.PID, gen.Alias:
		return watch{target, false}, nil
	case gen.ProcessID:
		id = target
	case gen.Atom:
		id.Name = target
	case string:
		id.Name = gen.Atom(target)
	default:
		return watch{}, errTarget(target)
	}
	if id.Node == "" {
		id.Node = p.node.name
	}
	return watch{id, false}, nil
}
