package node

import (
	"time"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

func (p *process) Send(to any, message any) error {
	return p.SendWithPriority(to, message, p.SendPriority())
}

func (p *process) SendImportant(to any, message any) error { return p.Send(to, message) }

func (p *process) SendWithPriority(to any, message any, priority gen.MessagePriority) error {
	if err := checkPriority(priority); err != nil {
		return err
	}
	a, err := p.node.find(to)
	return p.deliver(a, err, message, priority)
}

func (p *process) SendPID(to gen.PID, message any) error {
	a, err := p.node.byPID(to)
	return p.deliver(a, err, message, p.SendPriority())
}

func (p *process) SendProcessID(to gen.ProcessID, message any) error {
	a, err := p.node.byName(to)
	return p.deliver(a, err, message, p.SendPriority())
}

func (p *process) SendAlias(to gen.Alias, message any) error {
	a, err := p.node.byAlias(to)
	return p.deliver(a, err, message, p.SendPriority())
}

// deliver sends to a target that was looked up; err is that of the look-up.
func (p *process) deliver(a address, err error, message any, priority gen.MessagePriority) error {
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if err != nil {
		return err
	}
	if err := p.node.deliver(a, mailbox.Message{From: p.pid.ID, Payload: message}, priority); err != nil {
		return err
	}
	p.sent.Add(1)
	return nil
}

func (p *process) SendAfter(to any, message any, after time.Duration) (gen.CancelFunc, error) {
	if p.gone.Load() {
		return nil, gen.ErrProcessTerminated
	}
	switch to.(type) {
	case gen.PID, gen.Alias, gen.ProcessID, gen.Atom, string:
	default:
		return nil, errTarget(to)
	}
	priority := p.SendPriority()
	timer := time.AfterFunc(after, func() { _ = p.SendWithPriority(to, message, priority) })
	return timer.Stop, nil
}

func (p *process) SendExit(to gen.PID, reason error) error {
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if to == p.pid || to == p.parent {
		return gen.ErrNotAllowed
	}
	if reason == nil {
		return gen.ErrIncorrect
	}
	target, err := p.node.process(to)
	if err != nil {
		return err
	}
	return target.exit(p.pid, reason)
}

func (p *process) SendExitMeta(alias gen.Alias, reason error) error {
	if p.gone.Load() {
		return gen.ErrProcessTerminated
	}
	if reason == nil {
		return gen.ErrIncorrect
	}
	m, err := p.node.meta(alias)
	if err != nil {
		return err
	}
	m.end(reason)
	return nil
}

func (p *process) SendPriority() gen.MessagePriority {
	return gen.MessagePriority(p.priority.Load())
}

func (p *process) SetSendPriority(priority gen.MessagePriority) error {
	if err := checkPriority(priority); err != nil {
		return err
	}
	p.priority.Store(int32(priority))
	return nil
}
