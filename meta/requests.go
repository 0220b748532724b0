package meta

import (
	"errors"
	"fmt"
	"time"

	"ergo.services/ergo/gen"
)

// Errors of [Requests].
var (
	// ErrNoAnswer is what a caller gets whose request was not answered in time.
	ErrNoAnswer = errors.New("meta: the peer did not answer in time")
	// ErrDuplicate says that a request with the same id still waits for its answer.
	ErrDuplicate = errors.New("meta: the id is in use by another request")
)

// Requests matches what a peer answers to the requests that an actor sent to it on behalf of
// callers, for protocols in which a request and its answer carry the same id. The zero value is
// ready for use. It belongs to one actor, whose callbacks alone may call its methods.
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
	number uint64 // tells requests apart that had the same id one after the other
	cancel gen.CancelFunc
}

// MessageRequestTimeout tells an actor that a request of its [Requests] has waited long enough:
// hand it to Expire.
type MessageRequestTimeout struct {
	id     any
	number uint64
}

// Send writes a request to the connection and keeps the caller until the answer. It does not block.
// After timeout, which must be above 0, the actor gets a [MessageRequestTimeout]. An error says
// that nothing was sent and that the caller has to be told.
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

// Answer gives the caller of a request its answer. It returns false where no request of that id
// waits: the answer came too late, or nobody asked.
func (r *Requests[ID]) Answer(p gen.Process, id ID, answer any) bool {
	request, ok := r.waiting[id]
	if !ok {
		return false
	}
	delete(r.waiting, id)
	request.cancel()
	_ = p.SendResponse(request.caller, request.ref, answer) // an error says that the caller has ended
	return true
}

// Expire answers a request that has waited long enough with [ErrNoAnswer]. A message of a request
// that was answered meanwhile does nothing.
func (r *Requests[ID]) Expire(p gen.Process, m MessageRequestTimeout) {
	if id, ok := m.id.(ID); ok && r.waiting[id].number == m.number {
		r.Answer(p, id, ErrNoAnswer)
	}
}

// Fail answers every request that waits with an error, for the end of the connection. A request
// that is sent to a connection after its MessageTCPDisconnect gets no answer but [ErrNoAnswer].
func (r *Requests[ID]) Fail(p gen.Process, err error) {
	for id := range r.waiting {
		r.Answer(p, id, err)
	}
}

// Waiting is the number of requests that have no answer yet.
func (r *Requests[ID]) Waiting() int { return len(r.waiting) }
