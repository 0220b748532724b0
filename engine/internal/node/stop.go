package node

// Goroutine: the wait for a signal, started by SetCTRLC(true). It ends after the
// signal, with SetCTRLC(false), or with the node.

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"ergo.services/ergo/gen"
)

const (
	// startGrace bounds how long Stop waits for the return of a Start whose
	// Terminate has run.
	startGrace = 5 * time.Second
	// forceGrace bounds how long StopForce waits for callbacks.
	forceGrace = time.Second
)

func (n *node) Stop() {
	if n.stopped.Swap(true) {
		<-n.done
		return
	}
	drained := n.living.close()
	// The exit comes in the parent's name, so that nobody traps it.
	n.eachProcess(func(p *process) { _ = p.exit(p.parent, gen.TerminateReasonShutdown) })
	select {
	case <-drained:
		n.end(startGrace)
	case <-n.forced:
		<-n.done
	}
}

func (n *node) StopForce() {
	n.stopped.Store(true)
	n.force.Do(func() { close(n.forced) })
	drained := n.living.close()
	n.eachProcess(func(p *process) { p.kill() })
	within(drained, forceGrace)
	n.end(0)
}

// end runs once all processes have ended or were given up.
func (n *node) end(grace time.Duration) {
	n.finish.Do(func() {
		within(n.starts.close(), grace)
		n.workers.close()
		n.loggers.end()
		close(n.done)
	})
}

func (n *node) ended() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

func (n *node) Wait() { <-n.done }

func (n *node) WaitWithTimeout(timeout time.Duration) error {
	if !within(n.done, timeout) {
		return gen.ErrTimeout
	}
	return nil
}

// within reports whether c was closed before the time was over.
func within(c <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
	}
	select { // both may be true, and then the first one counts
	case <-c:
		return true
	default:
		return false
	}
}

// census counts what a stopping node waits for. Unlike a sync.WaitGroup it can be
// waited for with a limit and left behind.
type census struct {
	mu     sync.Mutex
	count  int
	closed bool
	zero   chan struct{} // closed when there is nobody left after close
}

// enter adds one, unless the census is closed.
func (c *census) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.count++
	return true
}

// join adds one also to a closed census, on behalf of one that is in it.
func (c *census) join() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
}

func (c *census) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count--
	if !c.closed || c.count > 0 {
		return
	}
	select {
	case <-c.zero: // zero before: somebody joined after a StopForce
	default:
		close(c.zero)
	}
}

func (c *census) close() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.zero = make(chan struct{})
		if c.count == 0 {
			close(c.zero)
		}
	}
	return c.zero
}

// signals is the state of SetCTRLC.
type signals struct {
	mu  sync.Mutex
	off chan struct{} // closed to turn it off; nil where it is off
}

func (n *node) SetCTRLC(enable bool) {
	s := &n.signals
	s.mu.Lock()
	defer s.mu.Unlock()
	if enable == (s.off != nil) {
		return
	}
	if !enable {
		close(s.off)
		s.off = nil
		return
	}
	off := make(chan struct{})
	s.off = off
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		defer signal.Stop(arrived)
		select {
		case <-off:
		case <-n.done:
		case got := <-arrived:
			// A second signal must be able to end a program that hangs.
			signal.Stop(arrived)
			n.log.Info("%s: stopping the node", got)
			n.Stop()
		}
	}()
}
