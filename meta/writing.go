package meta

import (
	"errors"
	"time"
)

// What a writer tells its connection, with the writer's lock held.

// writeFailed is called by the writer with its first error.
func (c *tcpConnection) writeFailed(err error) {
	if timeout(err) || errors.Is(err, errBacklog) {
		c.end(ErrSlowConsumer, err)
		return
	}
	// The peer is gone. What it sent before, an alert perhaps, says why: the read loop finds it.
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
	c.interruptLocked()
}

// wrote notes that the kernel has taken something.
func (c *tcpConnection) wrote() {
	c.touch()
	if len(c.opt.KeepAliveMessage) > 0 {
		c.written.Store(int64(time.Since(c.opened)))
	}
}

// congest is called when the message goroutine begins to wait for the peer. Reading goes on, since
// a peer may well write much before it reads, but only for what readAhead says, since what the
// owner answers waits in the mailbox.
func (c *tcpConnection) congest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited = true
	if c.congested {
		return
	}
	in, w := c.stats.messagesIn.Load(), &c.writer.writerStats
	c.congestion = congestion{congested: true}
	if in > 0 { // else nothing that was written is an answer
		c.perReply = int(w.accepted / in)
	}
	c.congested = c.sendSelf(catchUp{}) // where the mailbox is full it has a bound of its own
}

// catchUp is what a connection sends to itself while it is congested, behind the messages that
// wait.
type catchUp struct{}

// catchUp ends the congestion if, since this request was sent, the connection did not have to wait
// for its peer.
func (c *tcpConnection) catchUp() {
	_ = c.writer.sync() // an error ends the connection
	c.mu.Lock()
	defer c.mu.Unlock()
	again := c.waited && c.reason == nil
	c.waited = false
	if c.congested = again && c.sendSelf(catchUp{}); !c.congested {
		c.changed.broadcast()
	}
}
