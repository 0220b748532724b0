// Package mailbox is the queue in front of a process or meta process: many senders, one
// consumer, three priorities. It also says when a consumer is needed, so that one without
// messages has no goroutine, and it holds the reason of the end.
package mailbox

import (
	"sync"

	"ergo.services/ergo/gen"
)

// Kind is the callback that a message is for.
type Kind uint8

const (
	Regular Kind = iota
	Call
	Inspect // a call; the payload is the []string of items
	Exit    // the payload is a gen.MessageExitPID or gen.MessageExitAlias
)

// Message is what waits in a mailbox. Most of them have neither Ref nor To, whose memory would be
// two thirds of them.
type Message struct {
	Kind    Kind
	From    gen.PID
	Ref     *gen.Ref // of a call
	To      any      // the gen.Atom or gen.Alias that it was sent to, if it was, and not to a meta process
	Payload any
	next    *Message
}

type list struct {
	first, last *Message
	length      int64
}

// Mailbox is usable as its zero value, with its consumer considered running.
type Mailbox struct {
	Limit int64 // of the messages that wait, for each priority; 0 means none

	mu     sync.Mutex // guards what follows
	lists  [gen.MessagePriorityMax + 1]list
	idle   bool
	reason error // why it was closed, nil before
	count  uint64
}

// Push adds a message, beyond the limit if force is set. It returns ErrProcessMailboxFull or
// ErrProcessTerminated. Where wake is true the caller must start the consumer.
func (m *Mailbox) Push(message *Message, priority gen.MessagePriority, force bool) (wake bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.lists[priority]
	switch {
	case m.reason != nil:
		return false, gen.ErrProcessTerminated
	case m.Limit > 0 && l.length >= m.Limit && !force:
		return false, gen.ErrProcessMailboxFull
	case l.first == nil:
		l.first = message
	default:
		l.last.next = message
	}
	l.last = message
	l.length++
	m.count++
	return m.wake(), nil
}

// wake reports whether the consumer must be started. It is called with the mutex held.
func (m *Mailbox) wake() bool {
	idle := m.idle
	m.idle = false
	return idle
}

// Next takes the most urgent message, the oldest among those. It returns nil where there is
// none or the mailbox is closed. Only the consumer may call it.
func (m *Mailbox) Next() *Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.lists) - 1; i >= 0; i-- {
		l := &m.lists[i]
		if message := l.first; message != nil {
			l.first, message.next = message.next, nil
			if l.length--; l.first == nil {
				l.last = nil
			}
			return message
		}
	}
	return nil
}

// Park ends the consumer's turn where nothing waits and the mailbox is open: the next Push or Close
// starts a new one. Only the consumer may call it.
func (m *Mailbox) Park() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.idle = m.reason == nil
	for _, l := range m.lists {
		m.idle = m.idle && l.first == nil
	}
	return m.idle
}

// Close refuses further messages, forgets those that wait and keeps the reason. Only the first
// Close has an effect. Where wake is true the caller must start the consumer.
func (m *Mailbox) Close(reason error) (wake bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reason != nil {
		return false
	}
	m.reason = reason
	clear(m.lists[:])
	return m.wake()
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
