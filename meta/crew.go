package meta

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// maxResting is how many goroutines of a crew wait for the next handshake.
	maxResting = 32
	// restTime is after how long those that were not needed are let go.
	restTime = time.Second
)

// crew makes handshakes on goroutines that stay, for two reasons: a fresh one pays for the growth of its stack with every handshake
// (measured, 2 to 3 % of it), and the connection's own goroutine, which lives as long as the connection, keeps a small stack.
// Goroutines: hand.work, started by do, ended by do, trim or dismiss.
type crew struct {
	mu        sync.Mutex // guards all
	resting   []*hand    // the last one has the warmest stack
	fewest    int        // that rested since the last trim: so many were not needed
	trimming  bool       // a trim is to come
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
		c.fewest = min(c.fewest, n)
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
	if !c.trimming {
		c.trimming, c.fewest = true, 0
		time.AfterFunc(restTime, c.trim)
	}
}

// trim ends the goroutines that have rested ever since the last trim.
func (c *crew) trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(min(c.fewest, len(c.resting)))
	c.fewest = len(c.resting)
	if c.trimming = len(c.resting) > 0; c.trimming {
		time.AfterFunc(restTime, c.trim)
	}
}

// dismiss ends the goroutines, those that are at work after it.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
	c.endLocked(len(c.resting))
}

// endLocked ends the goroutines whose stacks are the coldest.
func (c *crew) endLocked(count int) {
	for _, h := range c.resting[:count] {
		close(h.job)
	}
	c.resting = append([]*hand(nil), c.resting[count:]...)
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
