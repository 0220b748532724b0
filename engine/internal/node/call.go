package node

import (
	"sync"
	"time"

	"ergo.services/ergo/gen"
	"ergo.services/ergo/internal/mailbox"
)

// pendingCall is the call that a process is blocked in; there is one at most.
type pendingCall struct {
	mu    sync.Mutex
	id    uint64 // 0 where there is none, or it is answered
	value any
	err   error
	ready chan struct{} // capacity 1; like the timer it is made once, at need
	timer *time.Timer
}

// start makes the call known, so that it can be answered.
func (c *pendingCall) start(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id = id
	if c.ready == nil {
		c.ready = make(chan struct{}, 1)
	}
}

// wait blocks until the call is answered, cancelled, or out of time.
func (c *pendingCall) wait(timeout time.Duration) (any, error) {
	if c.timer == nil {
		c.timer = time.NewTimer(timeout)
	} else {
		c.timer.Reset(timeout)
	}
	select {
	case <-c.ready:
		c.timer.Stop()
	case <-c.timer.C:
		c.answer(0, nil, gen.ErrTimeout)
		<-c.ready // it was answered just now, or at the same time by the callee
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	value, err := c.value, c.err
	c.value, c.err = nil, nil
	return value, err
}

// answer ends the wait of the call with this ID, 0 meaning whichever there is. It
// reports whether somebody waits.
func (c *pendingCall) answer(id uint64, value any, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == 0 || id != 0 && id != c.id {
		return false
	}
	c.id, c.value, c.err = 0, value, err
	c.ready <- struct{}{}
	return true
}

func (c *pendingCall) cancel(err error) { c.answer(0, nil, err) }

// request sends a message of a kind that is answered, and waits. The error err is
// that of looking up the target.
func (p *process) request(a address, err error, kind mailbox.Kind, payload any, timeout int) (any, error) {
	if err != nil {
		return nil, err
	}
	if a.process == p {
		return nil, gen.ErrNotAllowed // it would wait for itself
	}
	before := p.state.Load()
	if before == int32(gen.ProcessStateTerminated) {
		return nil, gen.ErrProcessTerminated
	}
	if before != int32(gen.ProcessStateRunning) && before != int32(gen.ProcessStateInit) ||
		!p.state.CompareAndSwap(before, int32(gen.ProcessStateWaitResponse)) {
		return nil, gen.ErrNotAllowed
	}
	defer p.state.Store(before)

	m := mailbox.Message{Kind: kind, From: p.pid.ID, Payload: payload, CallID: p.node.refIDs.Add(1)}
	p.pending.start(m.CallID)
	if p.box.Reason() != nil { // killed, perhaps before start
		p.pending.cancel(gen.TerminateReasonKill)
	} else if err := p.node.deliver(a, m, p.SendPriority()); err != nil {
		p.pending.cancel(err)
	} else {
		p.sent.Add(1)
	}
	if timeout <= 0 {
		timeout = gen.DefaultRequestTimeout
	}
	return p.pending.wait(time.Duration(timeout) * time.Second)
}

func (p *process) Call(to any, message any) (any, error) {
	return p.CallWithTimeout(to, message, gen.DefaultRequestTimeout)
}

func (p *process) CallWithTimeout(to any, message any, timeout int) (any, error) {
	a, err := p.node.find(to)
	return p.request(a, err, mailbox.Call, message, timeout)
}

func (p *process) CallPID(to gen.PID, message any, timeout int) (any, error) {
	a, err := p.node.byPID(to)
	return p.request(a, err, mailbox.Call, message, timeout)
}

func (p *process) CallProcessID(to gen.ProcessID, message any, timeout int) (any, error) {
	a, err := p.node.byName(to)
	return p.request(a, err, mailbox.Call, message, timeout)
}

func (p *process) CallAlias(to gen.Alias, message any, timeout int) (any, error) {
	a, err := p.node.byAlias(to)
	return p.request(a, err, mailbox.Call, message, timeout)
}

func (p *process) Inspect(target gen.PID, item ...string) (map[string]string, error) {
	a, err := p.node.byPID(target)
	return p.inspect(a, err, item)
}

func (p *process) InspectMeta(meta gen.Alias, item ...string) (map[string]string, error) {
	a, err := p.node.byAlias(meta)
	if err != nil || a.meta == nil {
		return nil, gen.ErrMetaUnknown
	}
	return p.inspect(a, nil, item)
}

func (p *process) inspect(a address, err error, item []string) (map[string]string, error) {
	value, err := p.request(a, err, mailbox.Inspect, item, gen.DefaultRequestTimeout)
	if err != nil {
		return nil, err
	}
	info, _ := value.(map[string]string)
	return info, nil
}

func (p *process) SendResponse(to gen.PID, ref gen.Ref, message any) error {
	return p.node.respond(to, ref, message, nil)
}

func (p *process) SendResponseError(to gen.PID, ref gen.Ref, err error) error {
	return p.node.respond(to, ref, nil, err)
}

// answer is respond for what a callback returns. That the caller may have given up
// is no fault of who answers.
func (n *node) answer(caller, call uint64, result any) {
	if p, ok := n.processes.Load(caller); ok {
		p.(*process).pending.answer(call, result, nil)
	}
}

func (n *node) respond(to gen.PID, ref gen.Ref, value any, err error) error {
	p, unknown := n.process(to)
	if unknown != nil {
		return unknown
	}
	if ref.ID[0] == 0 || !p.pending.answer(ref.ID[0], value, err) {
		return gen.ErrResponseIgnored
	}
	return nil
}
