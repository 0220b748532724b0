package node

import (
	"fmt"
	"maps"
	"slices"

	"ergo.services/ergo/gen"
)

func checkName(name gen.Atom) error {
	switch {
	case name == "":
		return fmt.Errorf("empty name: %w", gen.ErrIncorrect)
	case len(name) > maxAtom:
		return gen.ErrAtomTooLong
	}
	return nil
}

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
	if err := checkName(name); err != nil {
		return err
	}
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if p.name != "" {
		return fmt.Errorf("the process is already named %s: %w", p.name, gen.ErrTaken)
	}
	if p.node.names[name] != nil {
		return fmt.Errorf("name %s: %w", name, gen.ErrTaken)
	}
	p.name, p.node.names[name] = name, p
	return nil
}

func (p *process) dropName(reason error) []notice {
	if p.name == "" {
		return nil
	}
	id := gen.ProcessID{Name: p.name, Node: p.node.name}
	delete(p.node.names, p.name)
	p.name = ""
	return p.node.take(id, p.pid, nil, gen.MessageDownProcessID{ProcessID: id, Reason: reason})
}

// dropAlias makes an alias of the owner, or of a meta process of it, unknown.
func (n *node) dropAlias(alias gen.Alias, owner gen.PID, reason error) []notice {
	delete(n.aliases, alias.ID[0])
	return n.take(alias, owner,
		gen.MessageExitAlias{Alias: alias, Reason: reason}, gen.MessageDownAlias{Alias: alias, Reason: reason})
}

func (p *process) UnregisterName() error {
	p.node.mu.Lock()
	named := p.name != ""
	notices := p.dropName(gen.ErrNameUnknown)
	p.node.mu.Unlock()
	if !named {
		return gen.ErrNameUnknown
	}
	tell(notices)
	return nil
}

func (n *node) RegisterName(name gen.Atom, pid gen.PID) error {
	p, err := n.live(pid)
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

func (p *process) CreateAlias() (gen.Alias, error) {
	p.node.mu.Lock()
	defer p.node.mu.Unlock()
	if p.gone.Load() {
		return gen.Alias{}, gen.ErrProcessTerminated
	}
	alias := gen.Alias(p.node.MakeRef())
	if p.aliases == nil {
		p.aliases = make(map[gen.Alias]struct{})
	}
	p.aliases[alias] = struct{}{}
	p.node.aliases[alias.ID[0]] = &p.unit
	return alias, nil
}

func (p *process) DeleteAlias(alias gen.Alias) error {
	p.node.mu.Lock()
	_, own := p.aliases[alias]
	var notices []notice
	if own {
		delete(p.aliases, alias)
		notices = p.node.dropAlias(alias, p.pid, gen.ErrAliasUnknown)
	}
	p.node.mu.Unlock()
	if !own {
		return gen.ErrAliasUnknown
	}
	tell(notices)
	return nil
}

func (p *process) Aliases() []gen.Alias {
	p.node.mu.RLock()
	defer p.node.mu.RUnlock()
	return slices.Collect(maps.Keys(p.aliases))
}
