package node

import (
	"fmt"

	"ergo.services/ergo/gen"
)

func (p *process) Name() gen.Atom {
	p.node.mu.RLock()
	defer p.node.mu.RUnlock()
	return p.name
}

func (p *process) RegisterName(name gen.Atom) error {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	return p.register(name)
}

// register is called with the node's mutex held, as dropName and dropAlias are.
func (p *process) register(name gen.Atom) error {
	switch {
	case name == "":
		return fmt.Errorf("empty name: %w", gen.ErrIncorrect)
	case len(name) > maxName:
		return gen.ErrAtomTooLong
	case p.gone.Load():
		return gen.ErrProcessTerminated
	case p.name != "":
		return fmt.Errorf("the process is already named %s: %w", p.name, gen.ErrTaken)
	case p.node.names[name] != nil:
		return fmt.Errorf("name %s: %w", name, gen.ErrTaken)
	}
	p.name, p.node.names[name] = name, p
	return nil
}

func (p *process) dropName(reason error) {
	id := gen.ProcessID{Name: p.name, Node: p.node.name}
	delete(p.node.names, p.name)
	p.name = ""
	p.node.tell(id, p.pid, nil, gen.MessageDownProcessID{ProcessID: id, Reason: reason})
}

// dropAlias makes an alias of the process, or of a meta process of it, unknown.
func (p *process) dropAlias(alias gen.Alias, reason error) {
	delete(p.node.units, alias.ID[0])
	delete(p.aliases, alias)
	p.node.tell(alias, p.pid,
		gen.MessageExitAlias{Alias: alias, Reason: reason}, gen.MessageDownAlias{Alias: alias, Reason: reason})
}

func (p *process) UnregisterName() error {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	if p.name == "" {
		return gen.ErrNameUnknown
	}
	p.dropName(gen.ErrNameUnknown)
	return nil
}

func (n *node) RegisterName(name gen.Atom, pid gen.PID) error {
	p, err := n.find(pid)
	if err != nil {
		return err
	}
	return p.RegisterName(name)
}

func (n *node) UnregisterName(name gen.Atom) (gen.PID, error) {
	if n.ended() {
		return gen.PID{}, gen.ErrNodeTerminated
	}
	n.mu.RLock()
	p := n.names[name]
	n.mu.RUnlock()
	if p == nil {
		return gen.PID{}, gen.ErrNameUnknown
	}
	return p.pid, p.UnregisterName()
}

// addAlias makes a unit known under an alias: the process itself or a meta process of it.
func (p *process) addAlias(alias gen.Alias, u *unit, then func()) error {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	p.node.units[alias.ID[0]], p.aliases[alias] = u, u
	then()
	return nil
}

func (p *process) CreateAlias() (gen.Alias, error) {
	alias := gen.Alias(p.node.MakeRef())
	return alias, p.addAlias(alias, &p.unit, func() {})
}

func (p *process) DeleteAlias(alias gen.Alias) error {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	if p.aliases[alias] != &p.unit {
		return gen.ErrAliasUnknown
	}
	p.dropAlias(alias, gen.ErrAliasUnknown)
	return nil
}

func (p *process) Aliases() []gen.Alias { return p.list(func(u *unit) bool { return u == &p.unit }) }

// list returns the aliases of the process or of its meta processes.
func (p *process) list(match func(*unit) bool) (list []gen.Alias) {
	p.node.mu.RLock()
	defer p.node.mu.RUnlock()
	for alias, u := range p.aliases {
		if match(u) {
			list = append(list, alias)
		}
	}
	return list
}
