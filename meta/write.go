package meta

import (
	"errors"
	"sync"
	"time"
)

// errWriteClosed answers a write after the end of the connection or of its writing half.
var errWriteClosed = errors.New("meta: connection is closed for writing")

const (
	// coalesced is the size in bytes below which a message is copied to share a record with its neighbours.
	coalesced = 4 << 10
	// recordSize is the most that is put together: the payload of one TLS record (RFC 8446 section 5.1).
	recordSize = 16 << 10
)

// records are the buffers in which messages are put together. An idle connection holds none.
var records = sync.Pool{New: func() any { b := make([]byte, 0, coalesced); return &b }}

// writePiece is the most in bytes that is written before the socket is asked whether it is behind.
const writePiece = 4 * recordSize

// segment is a large message, or small ones put together.
type segment struct {
	data   []byte  // what is left to write
	whole  []byte  // the message
	record *[]byte // where data lies if it was put together
}

// writer writes messages in order. They are queued, and flushed when there are no more of them for the moment or
// they fill a record, so that small ones share records and system calls and nothing waits for a timer. A flush
// does not block: where the socket takes no more, a goroutine of its own goes on, and is there only as long as that lasts.
type writer struct {
	owner writerOwner
	limit uint64  // bytes that may wait
	sock  *socket // below out

	mu        sync.Mutex // guards all below
	changed   sync.Cond  // on mu: sent, err, flushing or closed have changed
	out       stream
	queue     []segment // what waits is queue[head:]
	owed      uint64    // bytes that the socket has taken but the kernel has not
	head      int32
	flushing  bool // somebody writes
	scheduled bool // a flush is to come
	closed    bool
	err       error
	writerStats
}

// writerOwner is who is told of what a writer does. All but writeFailed and touch may be called with the lock held.
type writerOwner interface {
	writeFailed(error)      // once, with the first error
	recycle(message []byte) // its bytes are not needed any more
	touch()                 // bytes were written
	flushLater() bool       // calls flush as soon as no further message waits; false where that cannot be
	watch() (stop func())   // it begins to wait for the peer, until stop
}

// writerStats are what a writer counts.
type writerStats struct {
	accepted uint64        // bytes taken
	sent     uint64        // bytes handed to the kernel
	waited   time.Duration // for room
}

func (w *writer) init(owner writerOwner, limit int, sock *socket) {
	w.owner, w.limit, w.sock = owner, uint64(limit), sock
	w.changed.L = &w.mu
}

// setOut says where to write to. What was accepted before must be written: see sync.
func (w *writer) setOut(out stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
}

// write accepts a message. It waits only for room: an empty queue has room for a message of any size. One
// goroutine at a time calls it.
func (w *writer) write(data []byte, when when) error {
	size := uint64(len(data))
	if size == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lacksRoom(size) {
		since := time.Now()
		var stop func()
		for w.lacksRoom(size) {
			if !w.flushing {
				w.flushLocked()
				continue
			}
			if stop == nil {
				stop = w.owner.watch()
				defer stop()
			}
			w.changed.Wait()
		}
		w.waited += time.Since(since)
	}
	if w.err != nil {
		return w.err
	}
	if w.closed {
		return errWriteClosed
	}
	w.accepted += size
	if size < coalesced {
		w.appendCopy(data)
		w.owner.recycle(data)
	} else {
		w.queue = append(w.queue, segment{data: data, whole: data})
	}
	switch {
	case w.flushing:
	case when == now, w.accepted-w.sent >= recordSize:
		w.flushLocked()
	case when == later && !w.scheduled:
		// With the lock held, so that after close no request is on its way: what comes to a meta process at the very moment of its
		// end, Ergo itself hands to the parent.
		if w.scheduled = true; !w.owner.flushLater() {
			w.flushLocked()
		}
	}
	return nil
}

// when a message is written, unless it fills a record before.
type when int

const (
	later when = iota // when no further message waits
	now
	synced // the caller calls sync
)

// appendCopy puts a small message into the last record of the queue, or a new one.
func (w *writer) appendCopy(data []byte) {
	if n := len(w.queue); n > int(w.head) {
		last := &w.queue[n-1]
		if last.record != nil && len(last.data)+len(data) <= recordSize {
			last.data = append(last.data, data...)
			return
		}
	}
	record := records.Get().(*[]byte)
	w.queue = append(w.queue, segment{data: append((*record)[:0], data...), record: record})
}

func (w *writer) lacksRoom(size uint64) bool {
	waiting := w.accepted - w.sent
	return w.err == nil && !w.closed && waiting > 0 && waiting+size > w.limit
}

// flush does what flushLater was asked for, unless that was done meanwhile: it writes what is queued, or sees to it that it is written.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.scheduled && !w.flushing {
		w.flushLocked()
	}
}

// flushLocked writes until the queue is empty or the socket takes no more. The lock is released while it writes.
func (w *writer) flushLocked() {
	w.flushing, w.scheduled = true, false
	if w.sock.raw == nil { // its writes block
		go w.drain()
		return
	}
	w.sock.setEager(true)
	w.writeQueue()
	if w.sock.setEager(false) {
		go w.drain()
		return
	}
	w.flushing = false
	w.changed.Broadcast()
}

// drain writes until the queue is empty, however long the socket takes within its deadlines.
func (w *writer) drain() {
	w.mu.Lock()
	owed := w.owed
	w.mu.Unlock()
	lost, err := w.sock.drain(int(owed))
	if err == nil {
		w.owner.touch()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent += owed - uint64(lost)
	w.owed = 0
	w.fail(err)
	w.changed.Broadcast()
	w.writeQueue()
	w.flushing = false
	w.changed.Broadcast()
}

// writeQueue writes until the queue is empty, an error, or the socket is behind.
func (w *writer) writeQueue() {
	for int(w.head) < len(w.queue) && w.err == nil && w.owed == 0 {
		s := w.queue[w.head]
		w.queue[w.head] = segment{}
		w.head++
		w.send(&s)
		if len(s.data) > 0 && w.err == nil {
			w.head--
			w.queue[w.head] = s
		}
	}
	if int(w.head) == len(w.queue) {
		w.queue, w.head = w.queue[:0], 0
		if cap(w.queue) > 64 {
			w.queue = nil
		}
	}
}

// send writes a segment with the lock released, as far as the socket takes it.
func (w *writer) send(s *segment) {
	for len(s.data) > 0 && w.err == nil && w.owed == 0 {
		piece := s.data[:min(len(s.data), writePiece)]
		out := w.out
		w.mu.Unlock()
		n, err := out.Write(piece)
		if err == nil {
			w.owner.touch()
		}
		behind := w.sock.behind()
		s.data = s.data[n:]
		if len(s.data) == 0 {
			w.release(s)
		}
		w.mu.Lock()
		if behind {
			w.owed = uint64(n)
		} else {
			w.sent += uint64(n)
		}
		w.fail(err)
		w.changed.Broadcast()
	}
}

// release gives back the memory of a segment that is written.
func (w *writer) release(s *segment) {
	if s.record == nil {
		w.owner.recycle(s.whole)
		return
	}
	*s.record = (*s.record)[:0]
	records.Put(s.record)
}

// fail notes the first error.
func (w *writer) fail(err error) {
	if err == nil || w.err != nil {
		return
	}
	w.err = err
	w.mu.Unlock()
	w.owner.writeFailed(err)
	w.mu.Lock()
}

// sync waits until all that was accepted is written, or returns the error that prevents it.
func (w *writer) sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var stop func()
	for w.err == nil && (w.flushing || int(w.head) < len(w.queue)) {
		if !w.flushing {
			w.flushLocked()
			continue
		}
		if stop == nil {
			stop = w.owner.watch()
			defer stop()
		}
		w.changed.Wait()
	}
	return w.err
}

// close refuses all further messages and wakes who waits for room.
func (w *writer) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.Broadcast()
}

func (w *writer) stats() writerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writerStats
}
