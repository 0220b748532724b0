package meta

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// maxResting is how many goroutines of a crew wait for the next handshake.
const maxResting = 32

// crew makes handshakes on goroutines that stay, for two reasons: a fresh one pays for the growth of its stack with every handshake
// (measured, 2 to 3 % of it), and the connection's own goroutine, which lives as long as the connection, keeps a small stack.
// Goroutines: hand.work, started by do, ended by do or dismiss.
type crew struct {
	mu        sync.Mutex // guards all
	resting   []*hand    // the last one has the warmest stack
	dismissed bool
}

type hand struct {
	job      chan func() // closed: it is to go
	done     chan struct{}
	panicked any
}

// do calls f on another goroutine and returns when it has returned. A panic of f is the caller's.
func (c *crew) do(f func()) {
	c.mu.Lock()
	var h *hand
	if n := len(c.resting) - 1; n >= 0 {
		h, c.resting[n] = c.resting[n], nil
		c.resting = c.resting[:n]
	}
	c.mu.Unlock()
	if h == nil {
		h = &hand{job: make(chan func(), 1), done: make(chan struct{}, 1)}
		go h.work()
	}
	h.job <- f
	<-h.done
	if h.panicked != nil {
		panic(h.panicked)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dismissed || len(c.resting) == maxResting {
		close(h.job)
		return
	}
	c.resting = append(c.resting, h)
}

// dismiss ends the goroutines, those that are at work after it.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
	for _, h := range c.resting {
		close(h.job)
	}
	c.resting = nil
}

func (h *hand) work() {
	returned := false
	defer func() { // of a panic, or of runtime.Goexit
		if v := recover(); !returned {
			h.panicked = fmt.Sprintf("%v in a handshake\n%s", v, debug.Stack())
			h.done <- struct{}{}
		}
	}()
	for f := range h.job {
		f()
		h.done <- struct{}{}
	}
	returned = true
}
