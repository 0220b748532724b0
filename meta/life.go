package meta

import (
	"context"
	"sync"
	"time"

	"ergo.services/ergo/gen"
)

// phase is the phase of a connection. Only Start's goroutine advances it, except for a connection
// that never started.
type phase int

const (
	created phase = iota
	establishing
	open    // accepts writes
	closing // accepts no more writes
	over    // everything is released
)

// life is the state that the goroutines of a connection share: its phase, and requests to its read
// loop.
type life struct {
	mu      sync.Mutex // guards all
	changed signal     // broadcast when anything below changes
	progress
	cancel   context.CancelFunc  // cancels what establish waits for; nil: it does not wait
	upgrade  *MessageTCPStartTLS // set by the message goroutine, cleared when the upgrade is done
	newOwner gen.PID             // zero: no change. Set by MessageTCPOwner, cleared by Start's goroutine
	drainBy  time.Time           // deadline of a Draining to send; set by the server's drain
	credit   int                 // messages that may be delivered, if opt.Active is set
	congestion
}

// progress is the phase of a connection, and why it ends.
type progress struct {
	phase          phase
	connectSent    bool             // Connect was sent, or is being sent; written by Start's goroutine
	disconnectSent bool             // Disconnect was sent; likewise. What the owner sent before it got the Disconnect may still be written
	reason         *DisconnectError // set by end, and by finish if a write has a better one
	broken         error            // error of the first failed write, set by the writer; the read loop may find its cause
}

// congestion limits how much is read from a peer that does not read.
type congestion struct {
	congested bool // the message goroutine has begun to wait for the peer and has not caught up since
	waited    bool // it has waited since the last catchUp was sent
	perReply  int  // bytes written for each message received
	ahead     int  // cost of the messages received since, in bytes
}

// batch describes what was delivered since the last wait for the owner.
type batch struct {
	in, out uint64  // messages from and to the peer before the batch
	due     float64 // messages to the peer expected by then
	rate    float64 // answers for each message, as far as known; at most 1
	cost    int
}

// messageCost is the overhead in bytes of a message that waits in a mailbox.
const messageCost = 192

// readAhead is the multiple of WriteBuffer that is read while written data waits for the peer.
const readAhead = 16

// view returns the current progress.
func (l *life) view() progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.progress
}

// asked reports whether the read loop is asked for something other than reading.
func (l *life) asked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.askedLocked()
}

func (l *life) askedLocked() bool {
	return l.reason != nil || l.upgrade != nil || !l.drainBy.IsZero() || l.newOwner != (gen.PID{})
}

// advance sets the phase.
func (l *life) advance(p phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase = p
	l.changed.broadcast()
}

// state describes the connection's state for ConnectionStats.
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

// signal wakes goroutines that wait for a change. The mutex of the changed state guards it; the
// zero value is ready.
type signal struct{ waiting chan struct{} }

// wait returns the channel that the next broadcast closes.
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
