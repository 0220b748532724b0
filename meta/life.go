package meta

import (
	"context"
	"sync"
	"time"

	"ergo.services/ergo/gen"
)

// phase is how far a connection is. Start's goroutine alone brings it on, but for a connection that
// never started.
type phase int

const (
	created phase = iota
	establishing
	open    // it can be written to
	closing // it can't any more
	over    // nothing of it is left
)

// life is what the goroutines of a connection share: how far it is, and what its read loop has to
// look at.
type life struct {
	mu      sync.Mutex // guards all
	changed signal     // anything below
	progress
	cancel   context.CancelFunc  // of what establish waits for; nil: it does not wait
	upgrade  *MessageTCPStartTLS // to TLS, asked for by the message goroutine and taken back when it is made
	newOwner gen.PID             // the owner from now on; zero: no change. Set by MessageTCPOwner, taken by Start's goroutine
	drainBy  time.Time           // a Draining is to be sent; set by the server's drain
	credit   int                 // messages that may be delivered, where opt.Active is set
	congestion
}

// progress is how far a connection is, and why it is to end.
type progress struct {
	phase          phase
	connectSent    bool             // Connect was sent; set by Start's goroutine
	disconnectSent bool             // Disconnect was sent; likewise. What the owner sent before it had that may still be written
	reason         *DisconnectError // why it is to end; set by end, and by finish where a write knows better
	cut            bool             // it was ended again: nothing is waited for any more
	broken         error            // the first failed write: the read loop may find out why. Set by the writer
}

// congestion bounds what is read from a peer that does not read.
type congestion struct {
	congested bool // the message goroutine has begun to wait for the peer and has not caught up since
	waited    bool // it did since its last catchUp was sent
	perReply  int  // bytes that were written for each message that came
	ahead     int  // what the messages that came since cost
}

// batch is what was delivered since the owner was last waited for.
type batch struct {
	in, out uint64  // messages from and to the peer before
	due     float64 // how many to the peer were expected by then
	rate    float64 // answers to each message, as far as known; at most 1
	cost    int
}

// messageCost is what a message takes beside its bytes while it waits in a mailbox, in bytes.
const messageCost = 192

// readAhead is how many times WriteBuffer is read while what was written before waits for the peer.
const readAhead = 16

// view gives how far the connection is at the moment.
func (l *life) view() progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.progress
}

// advance brings the connection on to a phase.
func (l *life) advance(p phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase = p
	l.changed.broadcast()
}

// state says in words how far the connection is.
func (c *tcpConnection) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.reason != nil:
		return "ending: " + c.reason.Error()
	case !c.connectSent:
		return "connecting"
	case c.heldBackLocked():
		return "held back: the peer does not read"
	case c.pausedLocked():
		return "passive"
	default:
		return "active"
	}
}

// signal wakes those who wait for a change. The mutex of what changes guards it; its zero value is
// ready.
type signal struct{ waiting chan struct{} }

// wait gives the channel that the next broadcast closes.
func (s *signal) wait() <-chan struct{} {
	if s.waiting == nil {
		s.waiting = make(chan struct{})
	}
	return s.waiting
}

func (s *signal) broadcast() {
	if s.waiting != nil {
		close(s.waiting)
		s.waiting = nil
	}
}
