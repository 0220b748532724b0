package meta

import (
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
	// recordSize is the most that is put together, and written at a time: the payload of one TLS
	// record (RFC 8446 section 5.1).
	recordSize = 16 << 10
)

// records are the buffers in which messages are put together. An idle connection holds none.
var records = sync.Pool{New: func() any { b := make([]byte, 0, coalesced); return &b }}

// segment is a large message, or small ones put together.
type segment struct {
	data   []byte  // what is left to write
	record *[]byte // where data lies if it was put together
	whole  []byte  // the message, where it goes back to the user's pool
}

// writer writes messages in order. They are queued, and flushed when there are no more of them for
// the moment or they fill a record, so that small ones share records and system calls and nothing
// waits for a timer. A flush does not block: where the kernel takes no more, a goroutine of its own
// (drain) goes on, and is there only as long as that lasts.
type writer struct {
	owner writerOwner
	limit uint64  // bytes that may wait
	sock  *socket // below out

	mu        sync.Mutex // guards all below; held while a message is encrypted and handed to the kernel, which does not block
	changed   signal     // sent, err, draining or closed have changed
	out       stream
	queue     []segment // what waits is queue[head:]
	head      int
	scheduled bool // a flush is to come
	draining  bool // the goroutine is there
	closed    bool
	err       error
	writerStats

	keepingAlive atomic.Bool // what is written is a keep-alive message; set with the lock held
}

// writerOwner is who is told of what a writer does, with the writer's lock held, except for await.
type writerOwner interface {
	writeFailed(error)            // once, with the first error
	recycle(message []byte)       // it is written and may be used again
	wrote()                       // the kernel has taken something that the owner has sent
	flushLater() bool             // calls flush as soon as no further message waits; false where that cannot be
	congest()                     // somebody is to wait for the peer
	await(signal <-chan struct{}) // waits for it
}

// writerStats are what a writer counts.
type writerStats struct {
	accepted uint64        // bytes taken
	sent     uint64        // bytes handed to the kernel
	waited   time.Duration // for room
}

func (w *writer) init(owner writerOwner, limit int, sock *socket) {
	w.owner, w.limit, w.sock = owner, uint64(limit), sock
}

// setOut says where to write to. What was accepted before must be written: see sync.
func (w *writer) setOut(out stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
}

// when a message is written, unless it fills a record before.
type when int

const (
	later when = iota // when no further message waits
	now
	synced // the caller calls sync
)

// write accepts a message. It waits only for room: an empty queue has room for a message of any
// size. One goroutine at a time calls it.
func (w *writer) write(m MessageTCP, when when) error {
	size := uint64(len(m.Data))
	if size == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lacksRoom(size) {
		since := time.Now()
		w.await(func() bool { return w.lacksRoom(size) })
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
	w.enqueue(m)
	switch {
	case w.draining:
	case when == now, w.accepted-w.sent >= recordSize:
		w.flushLocked()
	case when == later && !w.scheduled:
		// With the lock held, so that after close no request is on its way: what comes to a meta
		// process at the very moment of its end, Ergo itself hands to the parent.
		if w.scheduled = true; !w.owner.flushLater() {
			w.flushLocked()
		}
	}
	return nil
}

// enqueue puts a small message into the last record of the queue, or a new one.
func (w *writer) enqueue(m MessageTCP) {
	if len(m.Data) >= coalesced {
		s := segment{data: m.Data}
		if m.Recycle {
			s.whole = m.Data
		}
		w.queue = append(w.queue, s)
		return
	}
	var last *segment
	if n := len(w.queue); n > w.head {
		last = &w.queue[n-1]
	}
	if last == nil || last.record == nil || len(last.data)+len(m.Data) > recordSize {
		record := records.Get().(*[]byte)
		w.queue = append(w.queue, segment{data: (*record)[:0], record: record})
		last = &w.queue[len(w.queue)-1]
	}
	last.data = append(last.data, m.Data...)
	if m.Recycle {
		w.owner.recycle(m.Data)
	}
}

func (w *writer) lacksRoom(size uint64) bool {
	waiting := w.accepted - w.sent
	return w.err == nil && !w.closed && waiting > 0 && waiting+size > w.limit
}

// await writes until the condition is over, and waits for the peer where it must.
func (w *writer) await(condition func() bool) {
	for first := true; condition(); {
		if !w.draining {
			w.flushLocked()
			continue
		}
		if first {
			first = false
			w.owner.congest()
		}
		changed := w.changed.wait()
		w.mu.Unlock()
		w.owner.await(changed)
		w.mu.Lock()
	}
}

// flush does what flushLater was asked for, unless that was done meanwhile.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.scheduled && !w.draining {
		w.flushLocked()
	}
}

// flushLocked writes until the queue is empty or the kernel takes no more, and then has drain go
// on.
func (w *writer) flushLocked() {
	w.scheduled = false
	if left := w.writeQueue(); left.behind {
		w.draining = true
		go w.drain(left)
	}
	w.changed.broadcast()
}

// remainder is what the last write has left in the backlog of the socket.
type remainder struct {
	behind   bool // that it has left something
	payload  uint64
	overhead int // what TLS has added to each of its records
}

// writeQueue writes until the queue is empty, an error, or the kernel takes no more.
func (w *writer) writeQueue() remainder {
	for w.head < len(w.queue) && w.err == nil {
		s := &w.queue[w.head]
		n, err := w.out.Write(s.data[:min(len(s.data), recordSize)])
		if s.data = s.data[n:]; len(s.data) == 0 {
			w.release(s)
			w.head++
		}
		if behind, writes, bytes := w.sock.written(); behind && err == nil {
			w.trim()
			return remainder{true, uint64(n), (bytes - n) / max(1, writes)}
		}
		w.sent += uint64(n)
		w.wrote(err)
	}
	if w.err != nil {
		w.queue, w.head = nil, 0
	}
	w.trim()
	return remainder{}
}

// trim gives back the room in front of the head, which else would only grow as long as the peer is
// behind.
func (w *writer) trim() {
	if 2*w.head < len(w.queue) {
		return
	}
	n := copy(w.queue, w.queue[w.head:])
	clear(w.queue[n:])
	w.queue, w.head = w.queue[:n], 0
	if n == 0 && cap(w.queue) > 64 {
		w.queue = nil
	}
}

// drain waits for the kernel, however long the peer takes within WriteTimeout, and writes on until
// the queue is empty.
func (w *writer) drain(left remainder) {
	for left.behind {
		err := w.sock.drain(w.progress)
		w.mu.Lock()
		w.sent += left.payload - min(left.payload, w.sock.lost(left.overhead))
		w.wrote(err)
		left = w.writeQueue()
		w.draining = left.behind
		w.changed.broadcast()
		w.mu.Unlock()
	}
}

// wrote is called after each write. It notes the first error.
func (w *writer) wrote(err error) {
	switch {
	case err == nil:
		w.progress()
	case w.err == nil:
		w.err = err
		w.owner.writeFailed(err)
	}
}

// progress says that the kernel has taken something. That a keep-alive message was written does not
// count.
func (w *writer) progress() {
	if !w.keepingAlive.Load() {
		w.owner.wrote()
	}
}

// keepAlive writes a message if nothing else is on its way.
func (w *writer) keepAlive(message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.accepted == w.sent && !w.closed && w.err == nil {
		w.keepingAlive.Store(true)
		w.accepted += uint64(len(message))
		w.enqueue(MessageTCP{Data: message})
		w.flushLocked()
	}
}

// release gives back the memory of a segment that is written.
func (w *writer) release(s *segment) {
	if s.record != nil {
		*s.record = (*s.record)[:0]
		records.Put(s.record)
	} else if s.whole != nil {
		w.owner.recycle(s.whole)
	}
	*s = segment{}
}

// sync waits until all that was accepted is written, or returns the error that prevents it.
func (w *writer) sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.await(func() bool { return w.err == nil && (w.draining || w.head < len(w.queue)) })
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
