package node

// Goroutine: the one that SpawnMeta starts. It ends when Start returns, which Terminate brings
// about.

import (
	"fmt"

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
}

func (p *process) SpawnMeta(behavior gen.MetaBehavior, options gen.MetaOptions) (gen.Alias, error) {
	if behavior == nil {
		return gen.Alias{}, fmt.Errorf("the meta behavior is nil: %w", gen.ErrIncorrect)
	}
	level, err := checkOptions("MetaOptions", options.MailboxSize, options.SendPriority, options.LogLevel, &p.log)
	if err != nil {
		return gen.Alias{}, err
	}
	if p.gone.Load() {
		return gen.Alias{}, gen.ErrProcessTerminated
	}
	m := &meta{parent: p, behavior: behavior, id: gen.Alias(p.node.MakeRef()), priority: options.SendPriority}
	m.init(m, options.MailboxSize, p.node, level, m)
	if err := m.guard(func() error { return behavior.Init(m) }); err != nil {
		return gen.Alias{}, err
	}
	m.setState(gen.ProcessStateSleep)
	m.Park() // nobody could send yet

	return m.id, p.addAlias(m.id, &m.unit, func() {
		p.node.living.Add(1)
		p.node.starts.Go(m.start)
	})
}

func (m *meta) start() {
	reason := gen.TerminateReasonPanic // stays where Start calls runtime.Goexit
	defer func() { m.end(reason) }()
	reason = m.guard(m.behavior.Start)
}

func (m *meta) work() error {
	for message := m.Next(); message != nil; message = m.Next() {
		if err := m.handle(message); err != nil {
			return err
		}
	}
	return nil
}

func (m *meta) handle(message *mailbox.Message) (err error) {
	var answer any
	switch message.Kind {
	case mailbox.Call:
		answer, err = m.behavior.HandleCall(message.From, *message.Ref, message.Payload)
	case mailbox.Inspect:
		answer = m.behavior.HandleInspect(message.From, message.Payload.([]string)...)
	default:
		return m.behavior.HandleMessage(message.From, message.Payload)
	}
	if answer != nil {
		_ = m.parent.SendResponse(message.From, *message.Ref, answer) // the caller may have given up
	}
	return err
}

func (m *meta) full(*mailbox.Message, gen.MessagePriority) error { return gen.ErrMetaMailboxFull }

func (m *meta) terminate(reason error) {
	n := m.parent.node
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		m.parent.dropAlias(m.id, reason)
		n.living.Done()
	}()
	m.last(reason, m.behavior.Terminate)
}

func (m *meta) ID() gen.Alias                  { return m.id }
func (m *meta) Parent() gen.PID                { return m.parent.pid }
func (m *meta) Env(name gen.Env) (any, bool)   { return m.parent.Env(name) }
func (m *meta) EnvList() map[gen.Env]any       { return m.parent.EnvList() }
func (m *meta) Send(to any, message any) error { return m.SendWithPriority(to, message, m.priority) }

func (m *meta) SendWithPriority(to any, message any, priority gen.MessagePriority) error {
	return m.parent.sendAs(&m.unit, to, &mailbox.Message{Payload: message}, priority)
}

func (m *meta) Spawn(behavior gen.MetaBehavior, options gen.MetaOptions) (gen.Alias, error) {
	return m.parent.SpawnMeta(behavior, options)
}

func (m *meta) info() gen.MetaInfo {
	state := gen.MetaStateSleep // one that has ended has no info
	if gen.ProcessState(m.state.Load()) == gen.ProcessStateRunning {
		state = gen.MetaStateRunning
	}
	return gen.MetaInfo{
		ID: m.id, Parent: m.parent.pid, Behavior: typeName(m.behavior), State: state,
		MessagesIn: m.Count(), MessagesOut: m.sent.Load(),
	}
}

func (m *meta) logSource() any {
	return gen.MessageLogMeta{Node: m.parent.node.name, Parent: m.parent.pid, Meta: m.id, Behavior: typeName(m.behavior)}
}
