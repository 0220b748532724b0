package node

// Goroutine: workers.loop, which handles the messages of one unit after another.
// It is started by who wakes a unit (deliver, an end) while no worker is idle; it
// ends when it was not needed for a while, at the latest with the node.

import (
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
type workers struct {
	mu       sync.Mutex
	idle     []*worker // the last one is the warmest
	least    int       // fewest idle since the last trim: so many were not needed
	trimming bool      // a trim is scheduled
	closed   bool
}

type worker struct {
	next chan *unit // capacity 1; closed to let the worker go
}

// run sees to it that some goroutine runs the unit.
func (ws *workers) run(u *unit) {
	ws.mu.Lock()
	n := len(ws.idle) - 1
	if n < 0 {
		ws.mu.Unlock()
		go ws.loop(u)
		return
	}
	w := ws.idle[n]
	ws.idle[n] = nil
	ws.idle = ws.idle[:n]
	ws.least = min(ws.least, n)
	ws.mu.Unlock()
	w.next <- u
}

func (ws *workers) loop(u *unit) {
	w := &worker{next: make(chan *unit, 1)}
	for u != nil {
		u.run()
		if !ws.rest(w) {
			return
		}
		u = <-w.next
	}
}

// rest makes the worker available again, unless there are enough.
func (ws *workers) rest(w *worker) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
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
		close(w.next)
	}
	ws.idle = append([]*worker(nil), ws.idle[count:]...)
}
