package node

// Goroutines: the wait for a signal, started by SetCTRLC(true), which ends with the signal, with
// SetCTRLC(false) or with the node; and the one of finished, which ends when the group is empty.

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"ergo.services/ergo/gen"
)

const (
	// startGrace bounds how long Stop waits for the return of a Start whose Terminate has run.
	startGrace = 5 * time.Second
	// forceGrace bounds how long StopForce waits for callbacks.
	forceGrace = time.Second
)

func (n *node) IsAlive() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return !n.stopping
}

// close lets no process in any more, and reports whether this is the first call.
func (n *node) close() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := !n.stopping
	n.stopping = true
	return first
}

func (n *node) Stop() {
	if n.close() {
		for _, p := range n.all() {
			// The exit comes in the parent's name, so that nobody traps it.
			_ = n.exit(p.parent, p.pid, gen.TerminateReasonShutdown)
		}
	}
	select {
	case <-finished(&n.living):
		n.finish.Do(func() {
			within(finished(&n.starts), startGrace)
			n.end()
		})
	case <-n.done:
	}
}

func (n *node) StopForce() {
	n.close()
	for _, p := range n.all() {
		p.kill()
	}
	within(finished(&n.living), forceGrace)
	n.finish.Do(n.end)
}

func (n *node) end() {
	n.loggers.remove("", true)
	n.workers.close()
	n.over.Store(true)
	close(n.done)
}

func (n *node) ended() bool { return n.over.Load() }

func (n *node) Wait() { <-n.done }

func (n *node) WaitWithTimeout(timeout time.Duration) error {
	if !within(n.done, timeout) {
		return gen.ErrTimeout
	}
	return nil
}

// finished returns a channel that is closed when the group is empty.
func finished(group *sync.WaitGroup) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		group.Wait()
		close(c)
	}()
	return c
}

// within reports whether c was closed before the time was over.
func within(c <-chan struct{}, limit time.Duration) bool {
	select { // with no time at all c counts first
	case <-c:
		return true
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

func (n *node) SetCTRLC(enable bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if enable == (n.ctrlc != nil) {
		return
	}
	if !enable {
		close(n.ctrlc)
		n.ctrlc = nil
		return
	}
	off, arrived := make(chan struct{}), make(chan os.Signal, 1)
	n.ctrlc = off
	signal.Notify(arrived, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		defer signal.Stop(arrived)
		select {
		case <-off:
		case <-n.done:
		case got := <-arrived:
			signal.Stop(arrived) // a second signal must be able to end a program that hangs
			n.log.Info("%s: stopping the node", got)
			n.Stop()
		}
	}()
}
