package meta

import (
	"errors"
	"time"
)

// Methods of a connection that its writer calls with the writer's lock held.

// writeFailed is called by the writer with its first error.
func (c *tcpConnection) writeFailed(err error) {
	if timeout(err) || errors.Is(err, errBacklog) {
		c.end(ErrSlowConsumer, err)
		return
	}
	// The peer is gone. The read loop may find the cause in what the peer sent last, such as an alert.
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
	c.interruptLocked()
}

// wrote records that the kernel has taken data.
func (c *tcpConnection) wrote() {
	c.touch()
	if len(c.opt.KeepAliveMessage) > 0 {
		c.written.Store(int64(time.Since(c.opened)))
	}
}

// congest is called when the message goroutine begins to wait for the peer. Reading continues,
// since a peer may write much before it reads, but is limited by readAhead, since the owner's
// answers wait in the mailbox.
func (c *tcpConnection) congest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited = true
	if c.congested {
		return
	}
	in, w := c.stats.messagesIn.Load(), &c.writer.writerStats
	c.congestion = congestion{congested: true}
	if in > 0 { // else nothing written is an answer
		c.perReply = int(w.accepted / in)
	}
	c.congested = c.sendSelf(catchUp{}) // a full mailbox limits the answers by itself
}

// catchUp is a message that a congested connection sends to itself, behind the waiting ones.
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
