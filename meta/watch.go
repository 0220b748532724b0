package meta

import (
	"errors"
	"time"

	"ergo.services/ergo/gen"
)

// watch is called before the message goroutine waits for the peer, and stop after it. An exit is handled on that goroutine, so it would
// wait too, for up to WriteTimeout or HandshakeTimeout. What tells of it before is the alias, which is gone at once.
func (c *tcpConnection) watch() (stop func()) {
	interval := max(c.opt.CloseTimeout/4, 10*time.Millisecond)
	over := make(chan struct{})
	timer := time.AfterFunc(interval, func() { c.awaitExit(over, interval) })
	return func() {
		timer.Stop()
		close(over)
	}
}

// awaitExit ends the connection when its alias is gone. Its goroutine ends with that, or with the wait that it watches.
func (c *tcpConnection) awaitExit(over <-chan struct{}, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for !unreachable(c.process.Send(c.process.ID(), flushRequest{})) {
		select {
		case <-over:
			return
		case <-ticker.C:
		}
	}
	c.end(ErrTerminated, nil)
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
