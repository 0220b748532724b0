package meta

import (
	"fmt"
	"time"

	"ergo.services/ergo/gen"
)

// Requests matches answers of a peer with requests that an actor sent for its callers, in protocols
// in which a request and its answer have the same id. The zero value is ready to use. A Requests
// belongs to one actor; only that actor's callbacks may call its methods.
//
//	func (c *client) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
//		c.last++
//		if err := c.requests.Send(c, from, ref, c.connection, c.last, encode(c.last, request), time.Second); err != nil {
//			return err, nil
//		}
//		return nil, nil // the answer of the peer is the answer to the caller
//	}
//
//	func (c *client) HandleMessage(_ gen.PID, message any) error {
//		switch m := message.(type) {
//		case meta.MessageTCP:
//			c.requests.Answer(c, idOf(m.Data), m.Data)
//		case meta.MessageRequestTimeout:
//			c.requests.Expire(c, m)
//		case meta.MessageTCPUnsent: // with the option Reconnect
//			c.requests.Answer(c, idOf(m.Data), meta.ErrNotConnected)
//		case meta.MessageTCPDisconnect:
//			c.requests.Fail(c, m.Reason)
//		}
//		return nil
//	}
type Requests[ID comparable] struct {
	waiting map[ID]waitingRequest
	sent    uint64
}

type waitingRequest struct {
	caller gen.PID
	ref    gen.Ref
	number uint64 // distinguishes successive requests with the same id
	cancel gen.CancelFunc
}

// MessageRequestTimeout reports that a request has timed out: pass it to [Requests.Expire].
type MessageRequestTimeout struct {
	id     any
	number uint64
}

// Send writes a request to the connection and remembers the caller until the answer. It does not
// block. After timeout, which must be above 0, the actor gets a [MessageRequestTimeout]. On error
// nothing was sent; the caller then has no answer yet. The error wraps [ErrOption] or
// [ErrDuplicate], or is that of SendAlias.
func (r *Requests[ID]) Send(p gen.Process, caller gen.PID, ref gen.Ref, connection gen.Alias, id ID, data []byte, timeout time.Duration) error {
	if timeout <= 0 {
		return fmt.Errorf("%w: the timeout of a request is %s; use a positive duration", ErrOption, timeout)
	}
	if _, used := r.waiting[id]; used {
		return fmt.Errorf("%w: %v", ErrDuplicate, id)
	}
	r.sent++
	cancel, err := p.SendAfter(p.PID(), MessageRequestTimeout{id, r.sent}, timeout)
	if err != nil {
		return err
	}
	if err := p.SendAlias(connection, MessageTCP{Data: data}); err != nil {
		cancel()
		return err
	}
	if r.waiting == nil {
		r.waiting = map[ID]waitingRequest{}
	}
	r.waiting[id] = waitingRequest{caller, ref, r.sent, cancel}
	return nil
}

// Answer sends the caller of a request its answer. It returns false if no request with that id is
// waiting.
func (r *Requests[ID]) Answer(p gen.Process, id ID, answer any) bool {
	request, ok := r.waiting[id]
	if !ok {
		return false
	}
	delete(r.waiting, id)
	request.cancel()
	_ = p.SendResponse(request.caller, request.ref, answer) // on error the caller has ended
	return true
}

// Expire answers a timed-out request with [ErrNoAnswer]. It does nothing if the request was
// answered meanwhile.
func (r *Requests[ID]) Expire(p gen.Process, m MessageRequestTimeout) {
	if id, ok := m.id.(ID); ok && r.waiting[id].number == m.number {
		r.Answer(p, id, ErrNoAnswer)
	}
}

// Fail answers every waiting request with an error. Call it when the connection ends; with
// Reconnect.Keep only when it ends for good, because requests may wait for the next connection. A
// request that is sent to a connection after its last MessageTCPDisconnect gets [ErrNoAnswer].
func (r *Requests[ID]) Fail(p gen.Process, err error) {
	for id := range r.waiting {
		r.Answer(p, id, err)
	}
}

// Waiting returns the number of requests without an answer.
func (r *Requests[ID]) Waiting() int { return len(r.waiting) }
