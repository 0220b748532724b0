package node

// Goroutine: workers.loop, which handles the messages of one unit after another.
// It is started by who wakes a unit (deliver, an end) while no worker is idle; it
// ends when it was not needed for a while, at the latest with the node.

import (
	"runtime"
	"sync"
	"time"
)

const (
	// maxIdleWorkers bounds the stacks that a burst leaves behind.
	maxIdleWorkers = 256
	// trimInterval is how often idle workers that were not needed are let go.
	trimInterval = time.Second
)

// workers run the callbacks of units that have messages. They are kept for the
// next unit because a fresh goroutine pays for the growth of its stack with every
// callback that is deeper than 1 KiB: measured, that is 2 to 10 µs a message.
//
// As in Go's own scheduler one worker at a time is on its way to the queue: whoever
// finds one there need not wake another, and one that arrives wakes the next before it begins
// its unit, if there are more. So no unit waits for a callback that blocks, and
// a worker that is done takes the next unit without a change of goroutines.
type workers struct {
	mu       sync.Mutex
	queue    []*unit // queue[head:] have messages and wait for a worker
	head     int
	coming   bool      // a worker was woken and has not looked into the queue yet
	idle     []*worker // the last one is the warmest
	least    int       // fewest idle since the last trim: so many were not needed
	trimming bool      // a trim is scheduled
	closed   bool
}

type worker struct {
	wake chan struct{} // capacity 1; closed to let the worker go
}

// run sees to it that some goroutine runs the unit.
func (ws *workers) run(u *unit) {
	ws.mu.Lock()
	if len(ws.queue) == cap(ws.queue) && 2*ws.head > len(ws.queue) { // it may never become empty under load
		n := copy(ws.queue, ws.queue[ws.head:])
		clear(ws.queue[n:])
		ws.queue, ws.head = ws.queue[:n], 0
	}
	ws.queue = append(ws.queue, u)
	ws.callAndUnlock()
}

// callAndUnlock wakes a worker if none is coming to a queue that is not empty.
func (ws *workers) callAndUnlock() {
	if ws.coming || ws.head == len(ws.queue) {
		ws.mu.Unlock()
		return
	}
	ws.coming = true
	n := len(ws.idle) - 1
	if n < 0 {
		ws.mu.Unlock()
		go ws.loop(&worker{wake: make(chan struct{}, 1)})
		return
	}
	w := ws.idle[n]
	ws.idle[n] = nil
	ws.idle = ws.idle[:n]
	ws.least = min(ws.least, n)
	ws.mu.Unlock()
	w.wake <- struct{}{}
}

func (ws *workers) loop(w *worker) {
	for arriving, stay := true, true; stay; {
		var u *unit
		if u, stay = ws.next(w, arriving); u != nil {
			u.gather()
			u.run()
			arriving = false
		} else if stay {
			_, stay = <-w.wake
			arriving = true
		}
	}
}

// next gives the worker a unit, or makes it idle. It is to end where stay is false.
func (ws *workers) next(w *worker, arriving bool) (u *unit, stay bool) {
	ws.mu.Lock()
	if arriving {
		ws.coming = false
	}
	if ws.head == len(ws.queue) {
		defer ws.mu.Unlock()
		return nil, ws.rest(w)
	}
	u = ws.queue[ws.head]
	ws.queue[ws.head] = nil
	ws.head++
	if ws.head == len(ws.queue) {
		ws.queue, ws.head = ws.queue[:0], 0
	}
	ws.callAndUnlock()
	return u, true
}

// rest makes the worker available again, unless there are enough. It is called with the mutex held.
func (ws *workers) rest(w *worker) bool {
	if ws.closed || len(ws.idle) == maxIdleWorkers {
		return false
	}
	ws.idle = append(ws.idle, w)
	if !ws.trimming {
		ws.trimming = true
		time.AfterFunc(trimInterval, ws.trim)
	}
	return true
}

// gather lets the goroutines that can run go first, so that what they have for this unit is handled in
// one go. Where the last times brought nothing it is done more and more seldom: with one sender a time it is
// half a microsecond for nothing.
func (u *unit) gather() {
	if !u.gathers {
		return
	}
	if u.skip > 0 {
		u.skip--
		return
	}
	before := u.box.Count()
	runtime.Gosched()
	if u.box.Count() > before {
		u.vain = 0
	} else {
		u.vain = min(2*u.vain+1, 63)
	}
	u.skip = u.vain
}

// trim lets the workers go that were idle ever since the last trim.
func (ws *workers) trim() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.release(ws.least)
	ws.least = len(ws.idle)
	ws.trimming = len(ws.idle) > 0
	if ws.trimming {
		time.AfterFunc(trimInterval, ws.trim)
	}
}

func (ws *workers) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	ws.release(len(ws.idle))
	ws.least = 0
}

// release is called with the mutex held.
func (ws *workers) release(count int) {
	for _, w := range ws.idle[:count] {
		close(w.wake)
	}
	ws.idle = append([]*worker(nil), ws.idle[count:]...)
}
