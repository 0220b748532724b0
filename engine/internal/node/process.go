package node

import (
	"fmt"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
)

// process implements gen.Process.
type process struct {
	unit
	node     *node
	behavior gen.ProcessBehavior
	pid      gen.PID
	parent   gen.PID
	leader   gen.PID
	started  time.Time
	fallback gen.ProcessFallback
	env
	gone     atomic.Bool  // its Terminate has returned; set with node.mu held
	priority atomic.Int32 // a gen.MessagePriority
	pending  pendingCall

	// The node's mutex guards what follows.
	name     gen.Atom
	aliases  map[gen.Alias]*unit // to the process itself, or to its meta processes
	watching map[watch]struct{}
}

func (p *process) spawn(name *gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args []any) (pid gen.PID, err error) {
	if p.gone.Load() {
		return pid, gen.ErrProcessTerminated
	}
	level, err := checkOptions("ProcessOptions", options.MailboxSize, options.SendPriority, options.LogLevel, &p.log)
	if err != nil {
		return pid, err
	}
	if options.Fallback.Enable && options.Fallback.Name == "" {
		return pid, fmt.Errorf("ProcessOptions.Fallback is enabled but names no process: %w", gen.ErrIncorrect)
	}
	child := &process{
		node: p.node, parent: p.pid, leader: p.leader, started: time.Now(),
		behavior: factory(), fallback: options.Fallback,
		aliases: map[gen.Alias]*unit{}, watching: map[watch]struct{}{},
	}
	if child.behavior == nil {
		return pid, fmt.Errorf("the process factory returned nil: %w", gen.ErrIncorrect)
	}
	child.inherit(&p.env, options.Env)
	child.priority.Store(int32(options.SendPriority))
	child.setState(gen.ProcessStateInit)
	child.init(child, options.MailboxSize, p.node, level, child)
	if err := child.enter(name); err != nil {
		return pid, err
	}
	err = gen.TerminateReasonPanic // stays where ProcessInit calls runtime.Goexit
	defer func() {
		if err != nil {
			child.Close(err)
			child.remove()
		}
	}()
	linked := p != &p.node.process // nothing ends with the node's own process, nor that with anything
	if options.LinkParent && linked {
		if err = child.change(p.pid, true, true); err != nil {
			return pid, err
		}
	}
	err = child.guard(func() error { return child.behavior.ProcessInit(child, args...) })
	if err == nil && options.LinkChild && linked {
		err = p.change(child.pid, true, true)
	}
	if err != nil {
		return pid, err
	}
	child.setState(gen.ProcessStateSleep)
	if !child.Park() {
		child.workers.run(&child.unit)
	}
	return child.pid, nil
}

// enter makes the process known under a new PID and, unless that is nil, under a name.
func (p *process) enter(name *gen.Atom) error {
	n := p.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return gen.ErrNodeTerminated
	}
	if name != nil {
		if err := p.register(*name); err != nil {
			return err
		}
	}
	p.pid = gen.PID{Node: n.name, ID: n.lastID.Add(1), Creation: n.creation}
	n.units[p.pid.ID] = &p.unit
	n.living.Add(1)
	return nil
}

func (p *process) work() error { return p.behavior.ProcessRun() }

// kill makes the process unreachable and interrupts its Call, but cannot interrupt a callback.
func (p *process) kill() {
	p.end(gen.TerminateReasonKill)
	p.pending.answer(0, nil, gen.TerminateReasonKill)
}

func (p *process) terminate(reason error) {
	defer p.remove()
	p.last(reason, p.behavior.ProcessTerminate)
}

// remove removes every trace of a process whose callbacks are over, and tells those who watch it.
func (p *process) remove() {
	n, reason := p.node, p.Reason()
	p.setState(gen.ProcessStateTerminated)
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.living.Done()
	p.gone.Store(true)
	for w := range p.watching {
		p.unwatch(w)
	}
	for alias, u := range p.aliases {
		if u == &p.unit {
			p.dropAlias(alias, reason)
		} else {
			u.end(reason)
		}
	}
	if p.name != "" {
		p.dropName(reason)
	}
	delete(n.units, p.pid.ID)
	n.tell(p.pid, p.pid,
		gen.MessageExitPID{PID: p.pid, Reason: reason}, gen.MessageDownPID{PID: p.pid, Reason: reason})
}

func (p *process) Node() gen.Node                { return p.node }
func (p *process) PID() gen.PID                  { return p.pid }
func (p *process) Leader() gen.PID               { return p.leader }
func (p *process) Parent() gen.PID               { return p.parent }
func (p *process) Uptime() int64                 { return int64(time.Since(p.started) / time.Second) }
func (p *process) State() gen.ProcessState       { return gen.ProcessState(p.state.Load()) }
func (p *process) Behavior() gen.ProcessBehavior { return p.behavior }

func (p *process) Spawn(factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	return p.spawn(nil, factory, options, args)
}

func (p *process) SpawnRegister(register gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	return p.spawn(&register, factory, options, args)
}

func (p *process) Info() (gen.ProcessInfo, error) {
	if p.gone.Load() {
		return gen.ProcessInfo{}, gen.ErrProcessTerminated
	}
	return gen.ProcessInfo{
		PID: p.pid, Name: p.Name(), Behavior: typeName(p.behavior), State: p.State(),
		MessagesIn: p.Count(), MessagesOut: p.sent.Load(),
		Metas: p.list(func(u *unit) bool { return u != &p.unit && u.Reason() == nil }),
	}, nil
}

func (p *process) MetaInfo(alias gen.Alias) (gen.MetaInfo, error) {
	m, err := p.node.meta(alias)
	if err != nil {
		return gen.MetaInfo{}, err
	}
	return m.info(), nil
}

func (p *process) logSource() any {
	return gen.MessageLogProcess{Node: p.node.name, PID: p.pid, Name: p.Name(), Behavior: typeName(p.behavior)}
}
