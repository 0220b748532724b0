package node

import (
	"maps"
	"slices"
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

// take makes a target vanish, and removes and returns those who watch it. Both in
// one step: a name may belong to another process right after.
func (ws *watches) take(target any, vanish func()) (links, monitors []*process) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	vanish()
	return ws.takeAll(watch{target, true}), ws.takeAll(watch{target, false})
}

func (ws *watches) takeAll(w watch) []*process {
	watchers := slices.Collect(maps.Keys(ws.byTarget[w]))
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

// watch registers first and then looks whether the target is there; an end makes
// it vanish before it looks who watches. So the watcher gets either an error or
// exactly one message.
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

// removePID makes a process unknown and tells those who watch it.
func (n *node) removePID(pid gen.PID, reason error) {
	n.remove(pid, pid, func() { n.processes.Delete(pid.ID) },
		gen.MessageExitPID{PID: pid, Reason: reason}, gen.MessageDownPID{PID: pid, Reason: reason})
}

// removeAlias does it for an alias of the owner, or of a meta process of it.
func (n *node) removeAlias(alias gen.Alias, owner gen.PID, reason error) {
	n.remove(alias, owner, func() { n.aliases.Delete(alias.ID[0]) },
		gen.MessageExitAlias{Alias: alias, Reason: reason}, gen.MessageDownAlias{Alias: alias, Reason: reason})
}

// removeName does it for a name. Names cannot be linked to.
func (n *node) removeName(name gen.Atom, owner gen.PID, reason error) {
	id := gen.ProcessID{Name: name, Node: n.name}
	n.remove(id, owner, func() { n.names.Delete(name) },
		nil, gen.MessageDownProcessID{ProcessID: id, Reason: reason})
}

func (n *node) remove(target any, from gen.PID, vanish func(), exit, down any) {
	links, monitors := n.watches.take(target, vanish)
	for _, p := range links {
		_ = p.notify(mailbox.Exit, from, exit, gen.MessagePriorityMax)
	}
	for _, p := range monitors {
		_ = p.notify(mailbox.Regular, from, down, gen.MessagePriorityHigh)
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
