// Package mailbox is the queue in front of a process or meta process: many
// producers, one consumer, three priorities. It also decides who runs the
// consumer, so that one without messages needs no goroutine, and it is the
// single place where an end is decided.
//
// It starts no goroutine. A producer that is told to wake the consumer starts
// one; until that goroutine parks the mailbox again it is the only consumer.
package mailbox

import (
	"errors"
	"sync"
	"sync/atomic"

	"ergo.services/ergo/gen"
)

// ErrFull and ErrClosed are why a message was not taken.
var (
	ErrFull   = errors.New("mailbox: full")
	ErrClosed = errors.New("mailbox: closed")
)

// Kind says which callback a message is for.
type Kind uint8

const (
	Regular Kind = iota
	Call
	Inspect // a call; the payload is the []string of items
	Exit    // the payload is a gen.MessageExitPID or gen.MessageExitAlias
)

// Address is the name or the alias that a message was sent to.
type Address struct {
	Name  gen.Atom
	Alias gen.Alias
}

// Message is what waits in a mailbox. It is small because it is copied: all senders are on
// the same node, so that an ID is enough of them, and a call's gen.Ref is rebuilt.
type Message struct {
	Kind    Kind
	From    uint64 // the ID of its PID
	Payload any
	CallID  uint64
	To      *Address // nil where it was sent to the PID
}

// Sender is the PID of who sent it; beside is that of any process of the node.
func (m *Message) Sender(beside gen.PID) gen.PID {
	beside.ID = m.From
	return beside
}

// Ref is the reference that a response to a call carries.
func (m *Message) Ref(beside gen.PID) gen.Ref {
	return gen.Ref{Node: beside.Node, Creation: beside.Creation, ID: [3]uint64{m.CallID}}
}

const priorities = int(gen.MessagePriorityMax) + 1

// Mailbox is usable after Init, with its consumer considered running.
type Mailbox struct {
	limit int64

	mu     sync.Mutex // guards the fields up to the next blank line
	in     [priorities]list
	idle   bool
	reason error // why it was closed, nil before
	count  uint64

	// changed tells the consumer, between two messages of what it took, that a
	// more urgent one came or that the mailbox was closed.
	changed atomic.Bool
	// waiting counts in and taken; nil where there is no limit.
	waiting *[priorities]atomic.Int64

	taken [priorities]list // the consumer's own
}

// Init sets how many messages of each priority may wait; 0 means any number.
func (m *Mailbox) Init(limit int64) {
	m.limit = limit
	if limit > 0 {
		m.waiting = new([priorities]atomic.Int64)
	}
}

// Push adds a message. Where wake is true the caller must start the consumer.
func (m *Mailbox) Push(message *Message, priority gen.MessagePriority) (wake bool, err error) {
	return m.push(message, priority, m.limit)
}

// Force is Push beyond the limit, for what must not get lost.
func (m *Mailbox) Force(message *Message, priority gen.MessagePriority) (wake bool, err error) {
	return m.push(message, priority, 0)
}

func (m *Mailbox) push(message *Message, priority gen.MessagePriority, limit int64) (wake bool, err error) {
	m.mu.Lock()
	if m.reason != nil {
		m.mu.Unlock()
		return false, ErrClosed
	}
	if m.waiting != nil {
		if limit > 0 && m.waiting[priority].Load() >= limit {
			m.mu.Unlock()
			return false, ErrFull
		}
		m.waiting[priority].Add(1)
	}
	m.in[priority].push(message)
	m.count++
	if priority > gen.MessagePriorityNormal {
		m.changed.Store(true)
	}
	wake = m.idle
	m.idle = false
	m.mu.Unlock()
	return wake, nil
}

// Next takes the most urgent message, the oldest among those. It returns false
// where there is none or the mailbox is closed. Only the consumer may call it.
func (m *Mailbox) Next(message *Message) bool {
	if m.changed.Load() && !m.take() {
		return false
	}
	if m.pop(message) {
		return true
	}
	return m.take() && m.pop(message)
}

// take moves what has come in to the consumer's side, so that one lock serves
// many messages. It reports whether the mailbox is open.
func (m *Mailbox) take() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason != nil {
		m.taken = [priorities]list{}
		return false
	}
	m.changed.Store(false)
	for i := range m.in {
		m.taken[i].append(&m.in[i])
	}
	return true
}

func (m *Mailbox) pop(message *Message) bool {
	for i := priorities - 1; i >= 0; i-- {
		if m.taken[i].pop(message) {
			if m.waiting != nil {
				m.waiting[i].Add(-1)
			}
			return true
		}
	}
	return false
}

// Turn is what a consumer does after its messages.
type Turn uint8

const (
	Parked Turn = iota // nothing waits: the next Push or Close wakes a new consumer, and this one must not touch the mailbox again
	More               // something waits
	Closed             // the consumer comes to its end
)

// Park ends the consumer's turn where nothing waits. Only the consumer may call it.
func (m *Mailbox) Park() Turn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason != nil {
		return Closed
	}
	for i := range m.in {
		if m.in[i].head != nil || m.taken[i].head != nil {
			return More
		}
	}
	m.idle = true
	return Parked
}

// Close refuses further messages, forgets those that wait and keeps the reason.
// Only the first Close has an effect, and only that one returns first. Where wake
// is true the consumer is idle and the caller takes its place.
func (m *Mailbox) Close(reason error) (first, wake bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason != nil {
		return false, false
	}
	m.reason = reason
	m.in = [priorities]list{}
	m.changed.Store(true)
	wake = m.idle
	m.idle = false
	return true, wake
}

// Reason returns why the mailbox was closed, nil where it is open.
func (m *Mailbox) Reason() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reason
}

// Count returns how many messages were taken in so far.
func (m *Mailbox) Count() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}
