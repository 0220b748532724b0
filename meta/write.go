package meta

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// errWriteClosed answers a write after the end of the connection or of its writing half.
var errWriteClosed = errors.New("meta: connection is closed for writing")

const (
	// coalesced is the size in bytes below which a message is copied to share a record with its
	// neighbours.
	coalesced = 4 << 10
	// recordSize is the most that is written at a time: the payload of one TLS record (RFC 8446
	// section 5.1).
	recordSize = 16 << 10
)

// buffers are those in which messages are put together. An idle connection holds none.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writer writes messages in order. Small ones are put together, and written when no more of them
// wait or they fill a record, so that they share records and system calls and nothing waits for a
// timer. A large one is written at once.
//
// No write blocks: what the kernel does not take is the backlog of the socket, at most a record.
// While there is one, a goroutine (drain) waits for the peer, and messages of all sizes are put
// together.
type writer struct {
	conn  *tcpConnection
	limit uint64 // bytes that may wait: WriteBuffer

	mu        sync.Mutex // guards all below; held while a message is encrypted and handed to the kernel, which does not block
	changed   signal     // sent, err or closed have changed
	out       stream
	large     []byte        // what is left of a message that is written by itself
	recycled  []byte        // all of it, where it is to be recycled
	pending   *bytes.Buffer // messages that are put together, behind large; nil: none
	last      int           // bytes of messages in the last write, while draining
	scheduled bool          // a flush is to come
	draining  bool          // the goroutine is there
	closed    bool
	err       error
	writerStats

	keepingAlive atomic.Bool // what is written is a keep-alive message; set with the lock held
}

// writerStats are what a writer counts.
type writerStats struct {
	accepted uint64        // bytes taken
	sent     uint64        // bytes handed to the kernel
	waited   time.Duration // for room
}

// setOut says where to write to. What was accepted before must be written: see sync.
func (w *writer) setOut(out stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
}

// when a small message is written, unless it fills a record before.
type when int

const (
	later when = iota // when no further message waits
	now
	synced // the caller calls sync
)

// write accepts a message. It waits only for room: where nothing waits there is room for a message
// of any size. An error says that it was not accepted. One goroutine at a time calls it.
func (w *writer) write(m MessageTCP, when when) error {
	size := uint64(len(m.Data))
	if size == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full(size) {
		since := time.Now()
		w.await(func() bool { return w.full(size) })
		w.waited += time.Since(since)
	}
	if w.err != nil {
		return w.err
	}
	if w.closed {
		return errWriteClosed
	}
	w.accepted += size
	w.keepingAlive.Store(false)
	if size >= coalesced || w.accepted-w.sent > recordSize {
		w.flushLocked()
	}
	if size >= coalesced && !w.draining {
		if w.large = m.Data; m.Recycle {
			w.recycled = m.Data
		}
		w.flushLocked()
		return nil
	}
	w.add(m.Data)
	if m.Recycle {
		w.conn.inbox.recycle(m.Data)
	}
	switch {
	case w.draining:
	case when == now:
		w.flushLocked()
	case when == later && !w.scheduled:
		// With the lock held, so that after close no request is on its way: what comes to a meta
		// process at the very moment of its end, Ergo itself hands to the parent.
		if w.scheduled = true; !w.conn.sendSelf(flushRequest{}) {
			w.flushLocked()
		}
	}
	return nil
}

// full says that there is no room for a message.
func (w *writer) full(size uint64) bool {
	waiting := w.accepted - w.sent
	return waiting > 0 && waiting+size > w.limit && w.err == nil && !w.closed
}

// add puts a message to those that wait.
func (w *writer) add(message []byte) {
	if w.pending == nil {
		w.pending = buffers.Get().(*bytes.Buffer)
	}
	w.pending.Write(message)
}

// await writes, and waits for the peer while the condition holds.
func (w *writer) await(condition func() bool) {
	w.flushLocked()
	for first := true; condition(); w.flushLocked() {
		if first {
			first = false
			w.conn.congest()
		}
		changed := w.changed.wait()
		w.mu.Unlock()
		w.conn.await(changed)
		w.mu.Lock()
	}
}

// flush does what flushRequest asks for.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushLocked()
}

// flushLocked writes what waits, as far as the kernel takes it.
func (w *writer) flushLocked() {
	w.scheduled = false
	for !w.draining && (w.large != nil || w.pending != nil) {
		if w.large != nil {
			if w.large = w.large[w.step(w.large):]; len(w.large) == 0 || w.err != nil {
				w.conn.inbox.recycle(w.recycled)
				w.large, w.recycled = nil, nil
			}
			continue
		}
		if w.pending.Next(w.step(w.pending.Bytes())); w.pending.Len() == 0 || w.err != nil {
			if w.pending.Cap() <= 2*recordSize { // else it has grown for a slow peer
				w.pending.Reset()
				buffers.Put(w.pending)
			}
			w.pending = nil
		}
	}
}

// step writes the beginning of data, as much as fits into a record, and returns how much.
func (w *writer) step(data []byte) (n int) {
	if w.err != nil {
		return 0
	}
	n, err := w.out.Write(data[:min(len(data), recordSize)])
	if err == nil && w.conn.sock.owed() > 0 {
		w.draining, w.last = true, n
		go w.drain()
	} else {
		w.wrote(n, err)
	}
	return n
}

// drain waits until the kernel has taken the backlog, however long the peer takes within
// WriteTimeout, and writes on.
func (w *writer) drain() {
	err := w.conn.sock.drain(w.progress)
	w.mu.Lock()
	defer w.mu.Unlock()
	n, owed := w.last, w.conn.sock.owed()
	switch {
	case owed == 0:
	case w.out == stream(w.conn.sock):
		n -= min(n, owed)
	default:
		n = 0 // a record of which a part is missing is of no use to the peer
	}
	w.draining, w.last = false, 0
	w.wrote(n, err)
	w.flushLocked()
}

// wrote is called when the kernel has taken n bytes of the messages.
func (w *writer) wrote(n int, err error) {
	w.sent += uint64(n)
	if err == nil {
		w.progress()
	} else if w.err == nil {
		w.err = err
		w.conn.writeFailed(err)
	}
	w.changed.broadcast()
}

// progress says that the kernel has taken something. That a keep-alive message was written does not
// count.
func (w *writer) progress() {
	if !w.keepingAlive.Load() {
		w.conn.wrote()
	}
}

// keepAlive writes a message if nothing else is on its way.
func (w *writer) keepAlive(message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.accepted == w.sent && !w.closed && w.err == nil {
		w.keepingAlive.Store(true)
		w.accepted += uint64(len(message))
		w.add(message)
		w.flushLocked()
	}
}

// sync waits until all that was accepted is written, or returns the error that prevents it.
func (w *writer) sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.await(func() bool { return w.err == nil && w.accepted != w.sent })
	return w.err
}

// close refuses all further messages and wakes who waits for room.
func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.broadcast()
}

func (w *writer) stats() writerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writerStats
}
