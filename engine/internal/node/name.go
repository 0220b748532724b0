package node

import (
	"fmt"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.name == nil {
		return ""
	}
	return p.name.to.Name
}

func (p *process) RegisterName(name gen.Atom) error {
	if err := checkName(name); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if p.name != nil {
		return fmt.Errorf("the process is already named %s: %w", p.name.to.Name, gen.ErrTaken)
	}
	a := &address{unit: &p.unit, process: p, to: &mailbox.Address{Name: name}}
	if _, taken := p.node.names.LoadOrStore(name, a); taken {
		return fmt.Errorf("name %s: %w", name, gen.ErrTaken)
	}
	p.name = a
	return nil
}

func (p *process) UnregisterName() error {
	p.mu.Lock()
	a := p.name
	p.name = nil
	p.mu.Unlock()
	if a == nil {
		return gen.ErrNameUnknown
	}
	p.node.removeName(a.to.Name, p.pid, gen.ErrNameUnknown)
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
	a, err := n.byName(gen.ProcessID{Name: name})
	if err != nil {
		return gen.PID{}, gen.ErrNameUnknown
	}
	return a.process.pid, a.process.UnregisterName()
}

func (p *process) CreateAlias() (gen.Alias, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone.Load() {
		return gen.Alias{}, gen.ErrProcessTerminated
	}
	alias := p.node.newAlias()
	if p.aliases == nil {
		p.aliases = make(map[gen.Alias]struct{})
	}
	p.aliases[alias] = struct{}{}
	p.node.aliases.Store(alias.ID[0], &address{unit: &p.unit, process: p, to: &mailbox.Address{Alias: alias}})
	return alias, nil
}

func (p *process) DeleteAlias(alias gen.Alias) error {
	p.mu.Lock()
	_, own := p.aliases[alias]
	delete(p.aliases, alias)
	p.mu.Unlock()
	if !own {
		return gen.ErrAliasUnknown
	}
	p.node.removeAlias(alias, p.pid, gen.ErrAliasUnknown)
	return nil
}

func (p *process) Aliases() []gen.Alias {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]gen.Alias, 0, len(p.aliases))
	for alias := range p.aliases {
		list = append(list, alias)
	}
	return list
}
