package node

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
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
	env      env

	state    atomic.Int32 // a gen.ProcessState
	gone     atomic.Bool  // its Terminate has returned
	priority atomic.Int32 // a gen.MessagePriority
	sent     atomic.Uint64
	pending  pendingCall

	mu      sync.Mutex // guards what follows
	name    *address   // nil where it has none
	aliases map[gen.Alias]struct{}
	metas   map[*meta]struct{}
}

func newProcess(n *node, parent *process, factory gen.ProcessFactory, options gen.ProcessOptions) (*process, error) {
	if options.MailboxSize < 0 {
		return nil, fmt.Errorf("ProcessOptions.MailboxSize %d is negative: %w", options.MailboxSize, gen.ErrIncorrect)
	}
	if err := checkPriority(options.SendPriority); err != nil {
		return nil, fmt.Errorf("ProcessOptions.SendPriority: %w", err)
	}
	if options.Fallback.Enable && options.Fallback.Name == "" {
		return nil, fmt.Errorf("ProcessOptions.Fallback is enabled but names no process: %w", gen.ErrIncorrect)
	}
	above, parentEnv, parentPID, leader := &n.log, &n.env, n.pid, n.pid
	if parent != nil {
		above, parentEnv, parentPID, leader = &parent.log, &parent.env, parent.pid, parent.leader
	}
	level, err := inheritLevel(options.LogLevel, above.Level())
	if err != nil {
		return nil, fmt.Errorf("ProcessOptions.LogLevel: %w", err)
	}
	p := &process{
		node:     n,
		pid:      gen.PID{Node: n.name, ID: n.processIDs.Add(1), Creation: n.creation},
		parent:   parentPID,
		leader:   leader,
		started:  time.Now(),
		fallback: options.Fallback,
	}
	if p.behavior = factory(); p.behavior == nil {
		return nil, fmt.Errorf("the process factory returned nil: %w", gen.ErrIncorrect)
	}
	p.env.inherit(parentEnv, options.Env)
	p.priority.Store(int32(options.SendPriority))
	p.state.Store(int32(gen.ProcessStateInit))
	p.box.Init(options.MailboxSize)
	p.log.init(n, level, p)
	p.kind, p.gathers = p, true
	return p, nil
}

// spawn starts a process; parent is nil where that is the node.
func (n *node) spawn(parent *process, name gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args []any) (gen.PID, error) {
	if parent != nil && parent.gone.Load() {
		return gen.PID{}, gen.ErrProcessTerminated
	}
	p, err := newProcess(n, parent, factory, options)
	if err != nil {
		return gen.PID{}, err
	}
	// In the table before it is counted: Stop, which closes the census first, then
	// finds in the table all that it waits for.
	n.processes.Store(p.pid.ID, p)
	if !n.living.enter() {
		n.processes.Delete(p.pid.ID)
		return gen.PID{}, gen.ErrNodeTerminated
	}
	ready := false
	defer func() {
		if !ready {
			p.shut(orNormal(err))
			p.bury()
		}
	}()
	err = gen.TerminateReasonPanic // stays where ProcessInit calls runtime.Goexit
	err = p.prepare(parent, name, options, args)
	if err != nil {
		return gen.PID{}, err
	}
	ready = true
	p.awake(false)
	if p.box.Park() != mailbox.Parked {
		n.workers.run(&p.unit)
	}
	return p.pid, nil
}

// prepare does what must succeed before the process handles messages.
func (p *process) prepare(parent *process, name gen.Atom, options gen.ProcessOptions, args []any) error {
	if name != "" {
		if err := p.RegisterName(name); err != nil {
			return err
		}
	}
	if options.LinkParent && parent != nil {
		if err := p.LinkPID(parent.pid); err != nil {
			return err
		}
	}
	if err := p.guard(func() error { return p.behavior.ProcessInit(p, args...) }); err != nil {
		return err
	}
	if options.LinkChild && parent != nil {
		return parent.LinkPID(p.pid)
	}
	return nil
}

func (p *process) work() error { return p.behavior.ProcessRun() }

func (p *process) awake(running bool) {
	if running {
		p.state.Store(int32(gen.ProcessStateRunning))
	} else {
		p.state.Store(int32(gen.ProcessStateSleep))
	}
}

func (p *process) shut(reason error) (consumer bool) {
	_, consumer = p.box.Close(reason)
	return consumer
}

// kill makes the process unreachable and interrupts its Call, but cannot
// interrupt a callback.
func (p *process) kill() {
	consumer := p.shut(gen.TerminateReasonKill)
	p.pending.cancel(gen.TerminateReasonKill)
	if consumer {
		p.node.workers.run(&p.unit)
	}
}

func (p *process) terminate() {
	defer p.bury()
	reason := p.box.Reason()
	p.state.Store(int32(gen.ProcessStateTerminated))
	p.logEnd(reason)
	_ = p.guard(func() error {
		p.behavior.ProcessTerminate(reason)
		return nil
	})
}

// bury removes every trace of a process whose callbacks are over, and tells
// those who watch it.
func (p *process) bury() {
	n, reason := p.node, p.box.Reason()
	p.state.Store(int32(gen.ProcessStateTerminated))
	p.gone.Store(true)

	p.mu.Lock()
	name, aliases, metas := p.name, p.aliases, p.metas
	p.name, p.aliases, p.metas = nil, nil, nil
	p.mu.Unlock()

	for m := range metas {
		m.end(reason)
	}
	n.watches.forget(p)
	for alias := range aliases {
		n.removeAlias(alias, p.pid, reason)
	}
	if name != nil {
		n.removeName(name.to.Name, p.pid, reason)
	}
	n.removePID(p.pid, reason) // last: who hears of it may have the name
	n.living.leave()
}

// Mailbox and Answer are for act.Actor.
func (p *process) Mailbox() *mailbox.Mailbox { return &p.box }

func (p *process) Answer(caller, call uint64, result any) { p.node.answer(caller, call, result) }

func (p *process) Node() gen.Node                { return p.node }
func (p *process) PID() gen.PID                  { return p.pid }
func (p *process) Leader() gen.PID               { return p.leader }
func (p *process) Parent() gen.PID               { return p.parent }
func (p *process) Uptime() int64                 { return int64(time.Since(p.started) / time.Second) }
func (p *process) State() gen.ProcessState       { return gen.ProcessState(p.state.Load()) }
func (p *process) Behavior() gen.ProcessBehavior { return p.behavior }
func (p *process) Log() gen.Log                  { return &p.log }

func (p *process) EnvList() map[gen.Env]any             { return p.env.list() }
func (p *process) SetEnv(name gen.Env, value any)       { p.env.set(name, value) }
func (p *process) Env(name gen.Env) (any, bool)         { return p.env.get(name) }
func (p *process) EnvDefault(name gen.Env, def any) any { return p.env.getDefault(name, def) }

func (p *process) Spawn(factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	return p.node.spawn(p, "", factory, options, args)
}

func (p *process) SpawnRegister(register gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	if err := checkName(register); err != nil {
		return gen.PID{}, err
	}
	return p.node.spawn(p, register, factory, options, args)
}

func (p *process) Info() (gen.ProcessInfo, error) {
	if p.gone.Load() {
		return gen.ProcessInfo{}, gen.ErrProcessTerminated
	}
	return p.info(), nil
}

func (p *process) info() gen.ProcessInfo {
	info := gen.ProcessInfo{
		PID:         p.pid,
		Name:        p.Name(),
		Behavior:    typeName(p.behavior),
		MessagesIn:  p.box.Count(),
		MessagesOut: p.sent.Load(),
		State:       p.State(),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for m := range p.metas {
		info.Metas = append(info.Metas, m.id)
	}
	return info
}

func (p *process) MetaInfo(alias gen.Alias) (gen.MetaInfo, error) { return p.node.MetaInfo(alias) }

func (p *process) logSource() any {
	return gen.MessageLogProcess{Node: p.node.name, PID: p.pid, Name: p.Name(), Behavior: typeName(p.behavior)}
}
