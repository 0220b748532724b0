package node

// Goroutine: workers.work, started where no worker is idle. It ends when no worker was called for
// idleTime, at the latest with the node.

import (
	"runtime"
	"sync"
	"time"
)

const (
	// maxIdle is how many workers stay when there is nothing to do.
	maxIdle = 64
	// idleTime is for how long.
	idleTime = time.Second
)

// workers are the goroutines that handle the messages of a node's units. They stay for the next
// unit, since a new goroutine has to grow its stack before it can encrypt a message, which takes
// longer than all else that the engine does for one.
//
// One worker at a time is on its way to the queue. When it arrives, and whenever a worker takes a
// unit, the next one is called if there are more. So no unit waits for a callback that blocks, and
// where none blocks a few workers handle many units without a change of goroutines.
type workers struct {
	mu          sync.Mutex // guards all below
	first, last *unit      // the queue of units that have messages, or end
	coming      bool       // a worker was called and has not arrived
	idle        sync.Cond  // that one was called, or that all are to end
	idling      int        // workers that wait for it
	timed       bool       // release is to be called
	used        bool       // a worker was called since it was
	closed      bool
}

// run has a worker run the unit, which is not in the queue.
func (w *workers) run(u *unit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.first == nil {
		w.first = u
	} else {
		w.last.next = u
	}
	w.last = u
	w.call()
}

// call calls a worker if none is on its way to a queue that is not empty. It is called with the
// mutex held, as wait is.
func (w *workers) call() {
	if w.coming || w.first == nil {
		return
	}
	w.coming, w.used = true, true
	if w.idling == 0 {
		go w.work()
		return
	}
	w.idling--
	w.idle.Signal()
}

func (w *workers) work() {
	w.mu.Lock()
	for called := true; called; called = w.wait() {
		w.mu.Unlock()
		runtime.Gosched() // who is about to send does so first: a unit then handles many messages in one run
		w.mu.Lock()
		w.coming = false
		for w.first != nil {
			u := w.first
			w.first, u.next = u.next, nil
			w.call()
			w.mu.Unlock()
			u.run() // a callback that calls runtime.Goexit ends this goroutine
			w.mu.Lock()
		}
	}
	w.mu.Unlock()
}

// wait returns true when this worker is the one that was called, and false when it is to end.
func (w *workers) wait() (called bool) {
	if w.closed || w.idling == maxIdle {
		return false
	}
	if !w.timed {
		w.timed = true
		time.AfterFunc(idleTime, w.release)
	}
	w.idling++
	w.idle.Wait()
	return w.coming
}

// release lets all idle workers end if none was called lately.
func (w *workers) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timed = w.used && !w.closed; w.timed {
		w.used = false
		time.AfterFunc(idleTime, w.release)
		return
	}
	w.idling = 0
	w.idle.Broadcast()
}

// close lets all workers end once they have nothing to do.
func (w *workers) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.release()
}
