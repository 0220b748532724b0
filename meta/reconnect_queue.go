package meta

import (
	"slices"
	"sync"

	"ergo.services/ergo/gen"
)

// outbox holds the messages sent to a reconnecting that are not written yet.
type outbox struct {
	mu    sync.Mutex     // guards all below; held while a connection takes a message
	queue []keptMessage  // in order: messages that conn has taken, then waiting ones
	taken int            // how many of them conn has taken
	conn  *tcpConnection // nil: no connection has taken any
	size  int            // bytes that wait
}

type keptMessage struct {
	from gen.PID
	data []byte
	end  uint64 // its end among the bytes that its connection has taken
}

// pumpRequest is a message that a reconnecting sends to itself when a connection is established and
// when it has ended.
type pumpRequest struct{}

// write writes a message, keeps it, or returns it to its sender.
func (r *reconnecting) write(m keptMessage) {
	q := &r.outbox
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, m)
	q.size += len(m.data)
	if !r.pumpLocked() && !r.keeps(q.size) {
		q.queue = slices.Delete(q.queue, len(q.queue)-1, len(q.queue))
		q.size -= len(m.data)
		r.sendBack(m, 0)
	}
}

// keeps reports whether size more bytes may wait.
func (r *reconnecting) keeps(size int) bool {
	return r.opt.Reconnect.Keep && r.ctx.Err() == nil && size <= r.opt.WriteBuffer
}

func (r *reconnecting) pump() {
	r.outbox.mu.Lock()
	defer r.outbox.mu.Unlock()
	r.pumpLocked()
}

// pumpLocked passes the waiting messages to the connection, in order. It returns false if some must
// still wait; then a pumpRequest must follow.
func (r *reconnecting) pumpLocked() bool {
	q := &r.outbox
	for r.settleLocked(); q.taken < len(q.queue); {
		c, up := r.current()
		m := &q.queue[q.taken]
		if !up || q.conn != nil && q.conn != c || c.accept(MessageTCP{Data: m.data}) != nil {
			return false
		}
		w := c.writer.stats()
		m.end = w.accepted
		q.conn, q.taken, q.size = c, q.taken+1, q.size-len(m.data)
		q.drop(w.sent)
	}
	return true
}

// drop removes the messages that end within the bytes sent.
func (q *outbox) drop(sent uint64) {
	n := 0
	for n < q.taken && q.queue[n].end <= sent {
		n++
	}
	clear(q.queue[:n])
	if q.taken -= n; n == len(q.queue) {
		q.queue = q.queue[:0] // keeps its capacity
	} else {
		q.queue = q.queue[n:]
	}
}

// settleLocked drops written messages. Messages that an ended connection has not written wait for
// the next one, or are returned.
func (r *reconnecting) settleLocked() {
	q := &r.outbox
	if q.conn == nil {
		return
	}
	c, up := r.current() // read before sent, which no longer changes once c is over
	sent := q.conn.writer.stats().sent
	q.drop(sent)
	if up && c == q.conn {
		return
	}
	all, taken := q.queue, q.taken
	q.queue, q.taken, q.conn, q.size = nil, 0, nil, 0
	for i, m := range all {
		written := 0
		if i < taken {
			written = len(m.data) - int(min(m.end-sent, uint64(len(m.data))))
		}
		if size := q.size + len(m.data); written == 0 && r.keeps(size) {
			q.queue, q.size = append(q.queue, m), size
		} else {
			r.sendBack(m, written)
		}
	}
}

// giveBack returns all remaining messages. No further connection will be made.
func (r *reconnecting) giveBack() {
	q := &r.outbox
	q.mu.Lock()
	defer q.mu.Unlock()
	r.settleLocked()
	for _, m := range q.queue {
		r.sendBack(m, 0)
	}
	q.queue, q.size = nil, 0
}

// sendBack returns a message to its sender, with the number of bytes that were written.
func (r *reconnecting) sendBack(m keptMessage, written int) {
	if err := r.process.Send(m.from, MessageTCPUnsent{ID: r.process.ID(), Data: m.data, Written: written}); err != nil {
		r.process.Log().Warning("%d bytes from %s were not sent and could not be returned: %s", len(m.data)-written, m.from, err)
	}
}
