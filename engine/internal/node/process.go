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

// newProcess makes a process that the node does not know yet; parent is nil where that is the node.
func (n *node) newProcess(parent *process, factory gen.ProcessFactory, options gen.ProcessOptions) (*process, error) {
	above := &process{node: n, pid: n.pid, leader: n.pid}
	aboveLog, aboveEnv := &n.log, &n.env
	if parent != nil {
		above, aboveLog, aboveEnv = parent, &parent.log, &parent.env
	}
	level, err := checkOptions("ProcessOptions", options.MailboxSize, options.SendPriority, options.LogLevel, aboveLog)
	if err != nil {
		return nil, err
	}
	if options.Fallback.Enable && options.Fallback.Name == "" {
		return nil, fmt.Errorf("ProcessOptions.Fallback is enabled but names no process: %w", gen.ErrIncorrect)
	}
	p := &process{
		node: n, parent: above.pid, leader: above.leader,
		behavior: factory(), started: time.Now(), fallback: options.Fallback,
		aliases: map[gen.Alias]*unit{}, watching: map[watch]struct{}{},
	}
	if p.behavior == nil {
		return nil, fmt.Errorf("the process factory returned nil: %w", gen.ErrIncorrect)
	}
	p.inherit(aboveEnv, options.Env)
	p.priority.Store(int32(options.SendPriority))
	p.setState(gen.ProcessStateInit)
	p.Limit = options.MailboxSize
	p.log.init(n, level, p)
	p.kind = p
	return p, nil
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

func (n *node) spawn(parent *process, name *gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args []any) (pid gen.PID, err error) {
	if parent != nil && parent.gone.Load() {
		return gen.PID{}, gen.ErrProcessTerminated
	}
	p, err := n.newProcess(parent, factory, options)
	if err != nil {
		return gen.PID{}, err
	}
	if err := p.enter(name); err != nil {
		return gen.PID{}, err
	}
	ready := false
	defer func() {
		if !ready {
			p.Close(err)
			p.bury()
		}
	}()
	err = gen.TerminateReasonPanic // stays where ProcessInit calls runtime.Goexit
	if err = p.prepare(parent, options, args); err != nil {
		return gen.PID{}, err
	}
	ready = true
	p.setState(gen.ProcessStateSleep)
	if !p.Park() {
		go p.run()
	}
	return p.pid, nil
}

// prepare does what must succeed before the process handles messages.
func (p *process) prepare(parent *process, options gen.ProcessOptions, args []any) error {
	if options.LinkParent && parent != nil {
		if err := p.LinkPID(parent.pid); err != nil {
			return err
		}
	}
	err := p.guard(func() error { return p.behavior.ProcessInit(p, args...) })
	if err == nil && options.LinkChild && parent != nil {
		err = parent.LinkPID(p.pid)
	}
	return err
}

func (p *process) work() error { return p.behavior.ProcessRun() }

// kill makes the process unreachable and interrupts its Call, but cannot interrupt a callback.
func (p *process) kill() {
	p.end(gen.TerminateReasonKill)
	p.pending.answer(0, nil, gen.TerminateReasonKill)
}

func (p *process) terminate(reason error) {
	defer p.bury()
	p.last(reason, p.behavior.ProcessTerminate)
}

// bury removes every trace of a process whose callbacks are over, and tells those who watch it.
func (p *process) bury() {
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
	return p.node.spawn(p, nil, factory, options, args)
}

func (p *process) SpawnRegister(register gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	return p.node.spawn(p, &register, factory, options, args)
}

func (p *process) Info() (gen.ProcessInfo, error) {
	if p.gone.Load() {
		return gen.ProcessInfo{}, gen.ErrProcessTerminated
	}
	return gen.ProcessInfo{
		PID:         p.pid,
		Name:        p.Name(),
		Behavior:    typeName(p.behavior),
		MessagesIn:  p.Count(),
		MessagesOut: p.sent.Load(),
		State:       p.State(),
		Metas:       p.list(func(u *unit) bool { return u != &p.unit && u.Reason() == nil }),
	}, nil
}

func (p *process) MetaInfo(alias gen.Alias) (gen.MetaInfo, error) { return p.node.MetaInfo(alias) }

func (p *process) logSource() any {
	return gen.MessageLogProcess{Node: p.node.name, PID: p.pid, Name: p.Name(), Behavior: typeName(p.behavior)}
}
