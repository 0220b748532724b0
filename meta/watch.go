package meta

import (
	"errors"
	"sync"
	"time"

	"ergo.services/ergo/gen"
)

// watch is called by the writer before the message goroutine waits for the peer, and stop after it.
func (c *tcpConnection) watch() (stop func()) {
	c.limitReading()
	return c.watchExit()
}

// watchExit ends the connection on an exit while the message goroutine waits, until stop. An exit is handled on that goroutine, so it would
// wait too, for up to WriteTimeout or HandshakeTimeout. What tells of it before is the alias, which is gone at once.
func (c *tcpConnection) watchExit() (stop func()) {
	if c.ended.Load() != nil {
		return func() {}
	}
	w := &exitWatch{c: c, over: make(chan struct{})}
	interval := max(c.opt.CloseTimeout/4, 10*time.Millisecond)
	timer := time.AfterFunc(interval, func() { w.awaitExit(interval) })
	return func() {
		timer.Stop()
		w.asking.Lock()
		defer w.asking.Unlock()
		close(w.over)
	}
}

type exitWatch struct {
	c      *tcpConnection
	asking sync.Mutex    // held while the alias is asked, so that nobody asks after stop
	over   chan struct{} // closed: the wait is
}

// awaitExit ends the connection when its alias is gone. Its goroutine ends with that, or with the wait that it watches.
func (w *exitWatch) awaitExit(interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for !w.gone() {
		select {
		case <-w.over:
			return
		case <-ticker.C:
		}
	}
	w.c.end(ErrTerminated, nil)
}

// gone asks the alias by a message, which Ergo itself would hand to the parent if it came at the very moment of the connection's end: so it
// does not ask when the wait is over or the connection is on its way there.
func (w *exitWatch) gone() bool {
	w.asking.Lock()
	defer w.asking.Unlock()
	select {
	case <-w.over:
		return false
	default:
	}
	if w.c.ended.Load() != nil {
		return true
	}
	return unreachable(w.c.process.Send(w.c.process.ID(), flushRequest{}))
}

// unreachable says that the error of Send means that there is nobody any more.
func unreachable(err error) bool {
	for _, gone := range []error{gen.ErrProcessTerminated, gen.ErrProcessUnknown, gen.ErrMetaUnknown, gen.ErrAliasUnknown, gen.ErrNodeTerminated} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
