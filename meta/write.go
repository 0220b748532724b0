package meta

import (
	"errors"
	"io"
	"sync"
)

// errWriteClosed answers a write after the end of the connection or of its write side.
var errWriteClosed = errors.New("meta: connection is closed for writing")

// largeWrite is the size in bytes from which a message is written as it is, not copied to the queue.
const largeWrite = 4 << 10

// queues are the buffers of all writers: an idle connection holds none.
var queues = sync.Pool{New: func() any { b := make([]byte, 0, largeWrite); return &b }}

// writer writes messages in order. A small message is put into a queue that a goroutine of its own
// writes out, so that what comes meanwhile shares one record; it ends when the queue is
// empty. A large message, and one that finds the queue full, is written or waited for by the caller, the
// connection's message goroutine, which so holds the mailbox back.
type writer struct {
	limit  uint64      // bytes that may wait
	failed func(error) // called once, with the first error and without the lock

	mu       sync.Mutex // guards all below
	changed  sync.Cond  // on mu: written, err, busy or closed have changed
	out      io.Writer
	queue    *[]byte // nil: empty
	busy     bool    // somebody writes to out
	closed   bool
	err      error
	accepted uint64 // bytes taken
	written  uint64 // bytes handed to the kernel
}

func (w *writer) init(limit int, failed func(error)) {
	w.limit, w.failed = uint64(limit), failed
	w.changed.L = &w.mu
}

// setOut says where to write to. What was accepted before must be written: see sync.
func (w *writer) setOut(out io.Writer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
}

// write takes data, and returns before or after it is written. Only the connection's message goroutine calls it.
func (w *writer) write(data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(data) == 0 {
		return nil
	}
	large := len(data) >= largeWrite
	size := uint64(len(data))
	for w.refused() == nil && (large && w.busy || w.waiting() > 0 && w.waiting()+size > w.limit) {
		w.changed.Wait()
	}
	if err := w.refused(); err != nil {
		return err
	}
	w.accepted += size
	if large {
		w.busy = true
		w.writeOut(data)
		w.busy = false
		return nil // a failure is the connection's end, and is told as its reason
	}
	if w.queue == nil {
		w.queue = queues.Get().(*[]byte)
	}
	*w.queue = append(*w.queue, data...)
	if !w.busy {
		w.busy = true
		go w.flush()
	}
	return nil
}

func (w *writer) refused() error {
	if w.err != nil {
		return w.err
	}
	if w.closed {
		return errWriteClosed
	}
	return nil
}

func (w *writer) waiting() uint64 { return w.accepted - w.written }

// flush writes the queue until it is empty.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.queue != nil && w.err == nil {
		queue := w.queue
		w.queue = nil
		w.writeOut(*queue)
		if cap(*queue) <= 64<<10 {
			*queue = (*queue)[:0]
			queues.Put(queue)
		}
	}
	w.busy = false
	w.changed.Broadcast()
}

// writeOut writes data with the lock released. The caller has set busy.
func (w *writer) writeOut(data []byte) {
	out := w.out
	w.mu.Unlock()
	n, err := out.Write(data)
	w.mu.Lock()
	w.written += uint64(n)
	if err != nil && w.err == nil {
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
	for w.err == nil && (w.busy || w.waiting() > 0) {
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

// counts gives the bytes accepted and written.
func (w *writer) counts() (accepted, written uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accepted, w.written
}
