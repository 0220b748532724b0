package meta

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// errWriteClosed is the error of a write after the end of the connection or of its writing half.
var errWriteClosed = errors.New("meta: connection is closed for writing")

const (
	// coalesced is the size in bytes below which a message is copied to share a record with its
	// neighbours.
	coalesced = 4 << 10
	// recordSize is the size in bytes of the largest write: the payload of one TLS record (RFC 8446
	// section 5.1).
	recordSize = 16 << 10
)

// buffers are used to combine messages. An idle connection holds none.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// writer writes messages in order. It combines small ones and writes them when no more wait or they
// fill a record, so that they share records and system calls, and nothing waits for a timer. It
// writes a large one at once.
//
// No write blocks: data that the kernel does not take stays in the backlog of the socket, at most
// one record. While there is a backlog, a goroutine (drain) waits for the peer, and messages of all
// sizes are combined.
type writer struct {
	conn  *tcpConnection
	limit uint64 // bytes that may wait: WriteBuffer

	mu        sync.Mutex // guards all below; held while a message is encrypted and written, which does not block
	changed   signal     // broadcast when sent, err or closed changes
	out       stream
	large     []byte        // the rest of a message that is written by itself
	recycled  []byte        // the whole message, if it is to be recycled
	pending   *bytes.Buffer // combined messages, to write after large; nil: none
	last      int           // bytes of messages in the last write, while draining
	keeping   int           // bytes of a keep-alive message that wait, before all others
	scheduled bool          // a flush is scheduled
	draining  bool          // the drain goroutine runs
	closed    bool
	err       error
	writerStats

	keepingAlive atomic.Bool // a keep-alive message is being written; set with mu held
}

// writerStats are the counters of a writer.
type writerStats struct {
	accepted uint64        // bytes accepted
	sent     uint64        // bytes passed to the kernel
	kept     uint64        // bytes of keep-alive messages, which are neither accepted nor sent, likewise
	waited   time.Duration // for room
}

// setOut sets the stream to write to. Everything accepted before must be written: see sync.
func (w *writer) setOut(out stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = out
}

// when is the time at which a small message is written, unless it fills a record first.
type when int

const (
	later when = iota // when no further message waits
	now
	synced // the caller calls sync
)

// write accepts a message. It blocks only for lack of room; if nothing waits there is room for a
// message of any size. On error the message was not accepted. One goroutine at a time calls it.
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
		// With the lock held, so that no request is sent after close: Ergo forwards a message that
		// arrives at the moment a meta process ends to the parent.
		if w.scheduled = true; !w.conn.sendSelf(flushRequest{}) {
			w.flushLocked()
		}
	}
	return nil
}

// full reports whether there is no room for a message of the given size.
func (w *writer) full(size uint64) bool {
	waiting := w.accepted - w.sent + uint64(w.keeping)
	return waiting > 0 && waiting+size > w.limit && w.err == nil && !w.closed
}

// add appends a message to the waiting ones.
func (w *writer) add(message []byte) {
	if w.pending == nil {
		w.pending = buffers.Get().(*bytes.Buffer)
	}
	w.pending.Write(message)
}

// await writes, and waits for the peer while condition holds.
func (w *writer) await(condition func() bool) {
	w.flushLocked()
	for first := true; condition(); w.flushLocked() {
		if first && !w.closed { // else nothing more is answered
			w.conn.congest()
		}
		first = false
		changed := w.changed.wait()
		w.mu.Unlock()
		w.conn.await(changed)
		w.mu.Lock()
	}
}

// flush handles a flushRequest.
func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushLocked()
}

// flushLocked writes waiting messages until the kernel takes no more.
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
			if w.pending.Cap() <= 2*recordSize { // a larger one has grown for a slow peer
				w.pending.Reset()
				buffers.Put(w.pending)
			}
			w.pending = nil
		}
	}
}

// step writes as much of data as fits into a record, and returns the number of bytes.
func (w *writer) step(data []byte) (n int) {
	if w.err != nil {
		return 0
	}
	n, err := w.out.Write(data[:min(len(data), recordSize)])
	if err == nil && w.conn.sock.owed() > 0 {
		w.startDrain(n)
	} else {
		w.wrote(n, err)
	}
	return n
}

// startDrain starts the drain goroutine. The backlog has n bytes of messages.
func (w *writer) startDrain(n int) {
	w.draining, w.last = true, n
	go w.drain()
}

// drain waits until the kernel has taken the backlog, within the limit of WriteTimeout, and
// continues writing.
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
		n = 0 // an incomplete record is of no use to the peer
	}
	w.draining, w.last = false, 0
	w.wrote(n, err)
	w.flushLocked()
}

// wrote is called when the kernel has taken n bytes of the messages.
func (w *writer) wrote(n int, err error) {
	kept := min(n, w.keeping)
	w.keeping -= kept
	w.kept += uint64(kept)
	w.sent += uint64(n - kept)
	if err == nil {
		w.progress()
	} else if w.err == nil {
		w.err = err
		w.conn.writeFailed(err)
	}
	w.changed.broadcast()
}

// progress tells the connection that the kernel has taken data, other than a keep-alive message.
func (w *writer) progress() {
	if !w.keepingAlive.Load() {
		w.conn.wrote()
	}
}

// keepAlive writes a message if nothing else waits to be written.
func (w *writer) keepAlive(message []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.accepted == w.sent && w.keeping == 0 && !w.closed && w.err == nil {
		w.keepingAlive.Store(true)
		w.keeping = len(message)
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

// syncAll is sync for what crypto/tls has written by itself too, such as close_notify. It must not
// be called during a handshake, whose writes block.
func (w *writer) syncAll() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.await(func() bool {
		if w.err == nil && !w.draining && w.conn.sock.owed() > 0 {
			w.startDrain(0)
		}
		return w.err == nil && (w.draining || w.accepted != w.sent)
	})
	return w.err
}

// close refuses all further messages and wakes a write that waits for room.
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
