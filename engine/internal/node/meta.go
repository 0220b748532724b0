package node

// Goroutine: meta.start, started by SpawnMeta. It ends when Start returns, which
// Terminate brings about. Messages are handled by workers.

import (
	"fmt"
	"sync/atomic"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// meta implements gen.MetaProcess.
type meta struct {
	unit
	parent   *process
	behavior gen.MetaBehavior
	id       gen.Alias
	priority gen.MessagePriority
	state    atomic.Int32 // a gen.MetaState
	sent     atomic.Uint64
	last     atomic.Pointer[process] // that the last message to a PID went to: a socket sends all to one
}

func (p *process) SpawnMeta(behavior gen.MetaBehavior, options gen.MetaOptions) (gen.Alias, error) {
	m, err := newMeta(p, behavior, options)
	if err != nil {
		return gen.Alias{}, err
	}
	if err := m.guard(func() error { return behavior.Init(m) }); err != nil {
		return gen.Alias{}, err
	}
	m.awake(false)
	m.box.Park() // nobody could send yet

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone.Load() { // set before its meta processes are ended
		return gen.Alias{}, gen.ErrProcessTerminated
	}
	if p.metas == nil {
		p.metas = make(map[*meta]struct{})
	}
	p.metas[m] = struct{}{}
	p.node.aliases.Store(m.id.ID[0], &address{unit: &m.unit, meta: m})
	p.node.living.join()
	p.node.starts.join()
	go m.start()
	return m.id, nil
}

func newMeta(p *process, behavior gen.MetaBehavior, options gen.MetaOptions) (*meta, error) {
	if behavior == nil {
		return nil, fmt.Errorf("the meta behavior is nil: %w", gen.ErrIncorrect)
	}
	if options.MailboxSize < 0 {
		return nil, fmt.Errorf("MetaOptions.MailboxSize %d is negative: %w", options.MailboxSize, gen.ErrIncorrect)
	}
	if err := checkPriority(options.SendPriority); err != nil {
		return nil, fmt.Errorf("MetaOptions.SendPriority: %w", err)
	}
	level, err := inheritLevel(options.LogLevel, p.log.Level())
	if err != nil {
		return nil, fmt.Errorf("MetaOptions.LogLevel: %w", err)
	}
	if p.gone.Load() {
		return nil, gen.ErrProcessTerminated
	}
	m := &meta{parent: p, behavior: behavior, id: p.node.newAlias(), priority: options.SendPriority}
	m.box.Init(options.MailboxSize)
	m.log.init(p.node, level, m)
	m.kind = m
	return m, nil
}

func (m *meta) start() {
	defer m.parent.node.starts.leave()
	reason := gen.TerminateReasonPanic // stays where Start calls runtime.Goexit
	defer func() {
		if m.shut(orNormal(reason)) {
			m.run()
		}
	}()
	reason = m.guard(m.behavior.Start)
}

// end ends the meta process unless that has happened before. Terminate follows on
// the goroutine that handles messages.
func (m *meta) end(reason error) {
	if m.shut(orNormal(reason)) {
		m.parent.node.workers.run(&m.unit)
	}
}

func (m *meta) work() error {
	var message mailbox.Message
	for m.box.Next(&message) {
		if err := m.handle(&message); err != nil {
			return err
		}
	}
	return nil
}

func (m *meta) handle(message *mailbox.Message) error {
	var answer any
	var err error
	from := message.Sender(m.parent.pid)
	switch message.Kind {
	case mailbox.Call:
		answer, err = m.behavior.HandleCall(from, message.Ref(from), message.Payload)
	case mailbox.Inspect:
		answer = m.behavior.HandleInspect(from, message.Payload.([]string)...)
	default:
		return m.behavior.HandleMessage(from, message.Payload)
	}
	if answer != nil {
		m.parent.node.answer(message.From, message.CallID, answer)
	}
	return err
}

func (m *meta) awake(running bool) {
	if running {
		m.state.Store(int32(gen.MetaStateRunning))
	} else {
		m.state.Store(int32(gen.MetaStateSleep))
	}
}

// shut decides the reason of the end and makes the alias unknown.
func (m *meta) shut(reason error) (consumer bool) {
	first, consumer := m.box.Close(reason)
	if first {
		m.parent.node.aliases.Delete(m.id.ID[0])
		m.parent.mu.Lock()
		delete(m.parent.metas, m)
		m.parent.mu.Unlock()
	}
	return consumer
}

func (m *meta) terminate() {
	reason := m.box.Reason()
	defer func() {
		m.parent.node.removeAlias(m.id, m.parent.pid, reason)
		m.parent.node.living.leave()
	}()
	m.state.Store(int32(gen.MetaStateTerminated))
	m.logEnd(reason)
	_ = m.guard(func() error {
		m.behavior.Terminate(reason)
		return nil
	})
}

func (m *meta) ID() gen.Alias                  { return m.id }
func (m *meta) Parent() gen.PID                { return m.parent.pid }
func (m *meta) Env(name gen.Env) (any, bool)   { return m.parent.Env(name) }
func (m *meta) EnvList() map[gen.Env]any       { return m.parent.EnvList() }
func (m *meta) Log() gen.Log                   { return &m.log }
func (m *meta) Send(to any, message any) error { return m.SendWithPriority(to, message, m.priority) }

func (m *meta) SendWithPriority(to any, message any, priority gen.MessagePriority) error {
	if m.parent.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if err := checkPriority(priority); err != nil {
		return err
	}
	a, err := m.find(to)
	if err != nil {
		return err
	}
	if err := m.parent.node.deliver(a, mailbox.Message{From: m.parent.pid.ID, Payload: message}, priority); err != nil {
		return err
	}
	m.sent.Add(1)
	return nil
}

// find looks a target up. A message to the process that the one before went to needs no table; if that has ended its mailbox says so.
func (m *meta) find(to any) (address, error) {
	pid, ok := to.(gen.PID)
	if !ok {
		return m.parent.node.find(to)
	}
	if p := m.last.Load(); p != nil && p.pid == pid {
		return address{unit: &p.unit, process: p}, nil
	}
	a, err := m.parent.node.byPID(pid)
	if err == nil {
		m.last.Store(a.process)
	}
	return a, err
}

func (m *meta) Spawn(behavior gen.MetaBehavior, options gen.MetaOptions) (gen.Alias, error) {
	return m.parent.SpawnMeta(behavior, options)
}

func (m *meta) info() gen.MetaInfo {
	return gen.MetaInfo{
		ID:          m.id,
		Parent:      m.parent.pid,
		Behavior:    typeName(m.behavior),
		MessagesIn:  m.box.Count(),
		MessagesOut: m.sent.Load(),
		State:       gen.MetaState(m.state.Load()),
	}
}

func (m *meta) logSource() any {
	return gen.MessageLogMeta{Node: m.parent.node.name, Parent: m.parent.pid, Meta: m.id, Behavior: typeName(m.behavior)}
}
