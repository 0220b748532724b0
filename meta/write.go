package meta

import (
	"errors"
	"io"
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

// segment is what one call of Write gets: a large message, or small ones put together.
type segment struct {
	data   []byte
	record *[]byte // where data lies if it was put together; nil: it is a message
}

// writer writes messages in order. They are queued, and a goroutine that is there while the queue is not empty writes
// them out: what comes while it writes goes out together, and nothing waits for a timer.
type writer struct {
	limit   uint64       // bytes that may wait
	failed  func(error)  // called once, with the first error and without the lock
	written func([]byte) // called for each message whose bytes are not needed any more

	mu       sync.Mutex // guards all below
	changed  sync.Cond  // on mu: sent, err, flushing or closed have changed
	out      io.Writer
	queue    []segment
	spare    []segment // queue's memory for next time
	flushing bool      // there is a flush goroutine
	closed   bool
	err      error
	writerStats
}

func (w *writer) init(limit int, failed func(error), written func([]byte)) {
	w.limit, w.failed, w.written = uint64(limit), failed, written
	w.changed.L = &w.mu
}

// setOut says where to write to. What was accepted before must be written: see sync.
func (w *writer) setOut(out io.Writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
}

// write accepts a message. It waits only for room: an empty queue has room for a message of any size. One
// goroutine at a time calls it.
func (w *writer) write(data []byte) error {
	size := uint64(len(data))
	if size == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lacksRoom(size) {
		since := time.Now()
		for w.lacksRoom(size) {
			w.changed.Wait()
		}
		w.waited += time.Since(since)
	}
	if err := w.refused(); err != nil {
		return err
	}
	w.accepted += size
	if size < coalesced {
		w.appendCopy(data)
		w.written(data)
	} else {
		w.queue = append(w.queue, segment{data: data})
	}
	if !w.flushing {
		w.flushing = true
		go w.flush()
	}
	return nil
}

// appendCopy puts a small message into the last record of the queue, or a new one.
func (w *writer) appendCopy(data []byte) {
	if n := len(w.queue); n > 0 {
		last := &w.queue[n-1]
		if last.record != nil && len(last.data)+len(data) <= recordSize {
			last.data = append(last.data, data...)
			return
		}
	}
	record := records.Get().(*[]byte)
	w.queue = append(w.queue, segment{append((*record)[:0], data...), record})
}

func (w *writer) refused() error {
	if w.err == nil && w.closed {
		return errWriteClosed
	}
	return w.err
}

func (w *writer) lacksRoom(size uint64) bool {
	waiting := w.accepted - w.sent
	return w.err == nil && !w.closed && waiting > 0 && waiting+size > w.limit
}

// flush writes the queue until it is empty.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 && w.err == nil {
		batch := w.queue
		w.queue = w.spare[:0]
		for i := range batch {
			if w.err == nil {
				w.send(&batch[i])
			}
		}
		clear(batch)
		w.spare = batch
	}
	if cap(w.spare) > 64 {
		w.spare = nil
	}
	w.flushing = false
	w.changed.Broadcast()
}

// send writes one segment with the lock released.
func (w *writer) send(s *segment) {
	out := w.out
	w.mu.Unlock()
	n, err := out.Write(s.data)
	if s.record == nil {
		w.written(s.data)
	} else {
		*s.record = s.data[:0]
		records.Put(s.record)
	}
	w.mu.Lock()
	w.sent += uint64(n)
	if err != nil {
		w.err = err
		w.mu.Unlock()
		w.failed(err)
		w.mu.Lock()
	}
	w.changed.Broadcast()
}

// sync waits until all that was accepted is written, or returns the error that prevents it.
func (w *writer) sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && w.flushing {
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

// writerStats are what a writer counts.
type writerStats struct {
	accepted uint64        // bytes taken
	sent     uint64        // bytes handed to the kernel
	waited   time.Duration // for room
}

func (w *writer) stats() writerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writerStats
}
