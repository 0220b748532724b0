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
	id    uint64        // 0 where there is none, or it is answered
	reply chan response // capacity 1
}

type response struct {
	value any
	err   error
}

// answer ends the wait of the call with this ID, 0 meaning whichever there is. It reports
// whether somebody waits.
func (c *pendingCall) answer(id uint64, value any, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id == 0 || id != 0 && id != c.id {
		return false
	}
	c.id = 0
	c.reply <- response{value, err}
	return true
}

// request sends a message of a kind that is answered, and waits.
func (p *process) request(to any, kind mailbox.Kind, payload any, timeout int) (any, error) {
	before := p.state.Load()
	switch gen.ProcessState(before) {
	case gen.ProcessStateTerminated:
		return nil, gen.ErrProcessTerminated
	case gen.ProcessStateRunning, gen.ProcessStateInit:
	default:
		return nil, gen.ErrNotAllowed
	}
	ref := p.node.MakeRef()
	m := &mailbox.Message{Kind: kind, Ref: &ref, Payload: payload}
	if !p.state.CompareAndSwap(before, int32(gen.ProcessStateWaitResponse)) {
		return nil, gen.ErrNotAllowed
	}
	defer p.state.Store(before)

	c, reply := &p.pending, make(chan response, 1)
	c.mu.Lock()
	c.id, c.reply = ref.ID[0], reply
	c.mu.Unlock()
	if p.Reason() != nil { // killed, perhaps before the call was known
		c.answer(0, nil, gen.TerminateReasonKill)
	} else if err := p.sendAs(&p.unit, to, m, p.SendPriority()); err != nil {
		c.answer(0, nil, err)
	}
	if timeout <= 0 {
		timeout = gen.DefaultRequestTimeout
	}
	timer := time.AfterFunc(time.Duration(timeout)*time.Second, func() { c.answer(ref.ID[0], nil, gen.ErrTimeout) })
	defer timer.Stop()
	r := <-reply
	return r.value, r.err
}

func (p *process) CallWithTimeout(to any, message any, timeout int) (any, error) {
	return p.request(to, mailbox.Call, message, timeout)
}

func (p *process) Call(to any, message any) (any, error) { return p.CallWithTimeout(to, message, 0) }

func (p *process) CallPID(to gen.PID, message any, timeout int) (any, error) {
	return p.CallWithTimeout(to, message, timeout)
}

func (p *process) CallProcessID(to gen.ProcessID, message any, timeout int) (any, error) {
	return p.CallWithTimeout(to, message, timeout)
}

func (p *process) CallAlias(to gen.Alias, message any, timeout int) (any, error) {
	return p.CallWithTimeout(to, message, timeout)
}

func (p *process) Inspect(target gen.PID, item ...string) (map[string]string, error) {
	return p.inspect(target, item)
}

func (p *process) InspectMeta(meta gen.Alias, item ...string) (map[string]string, error) {
	if _, err := p.node.meta(meta); err != nil {
		return nil, gen.ErrMetaUnknown
	}
	return p.inspect(meta, item)
}

func (p *process) inspect(target any, item []string) (map[string]string, error) {
	value, err := p.request(target, mailbox.Inspect, item, 0)
	info, _ := value.(map[string]string)
	return info, err
}

func (p *process) SendResponse(to gen.PID, ref gen.Ref, message any) error {
	return p.respond(to, ref, message, nil)
}

func (p *process) SendResponseError(to gen.PID, ref gen.Ref, err error) error {
	return p.respond(to, ref, nil, err)
}

func (p *process) respond(to gen.PID, ref gen.Ref, value any, err error) error {
	caller, unknown := p.node.find(to)
	if unknown != nil {
		return unknown
	}
	if ref.ID[0] == 0 || !caller.pending.answer(ref.ID[0], value, err) {
		return gen.ErrResponseIgnored
	}
	return nil
}
