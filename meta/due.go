package meta

import (
	"math/rand/v2"
	"time"
)

// brokenGrace is how long the read loop looks for the peer's last words after a write has failed.
const brokenGrace = time.Second

// dueLocked gives the time at which the read loop has something to do even if nothing comes; zero:
// none.
func (c *tcpConnection) dueLocked() (due time.Time) {
	if c.broken != nil {
		if c.brokenUntil.IsZero() {
			c.brokenUntil = time.Now().Add(brokenGrace)
		}
		return c.brokenUntil
	}
	if c.opt.IdleTimeout > 0 {
		due = c.idleAt()
	}
	if !c.inputEnded.IsZero() {
		due = earlier(due, c.inputEnded.Add(c.opt.HalfClose))
	}
	if len(c.opt.KeepAliveMessage) > 0 {
		due = earlier(due, c.keepAliveAt())
	}
	return earlier(earlier(due, c.ownerAt), c.expires)
}

// earlier gives the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// doDue does what is due.
func (c *tcpConnection) doDue() {
	c.mu.Lock()
	broken := c.broken
	c.mu.Unlock()
	now := time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case broken != nil:
		if passed(c.brokenUntil) {
			c.end(ErrReset, broken)
		}
	case !c.inputEnded.IsZero() && passed(c.inputEnded.Add(c.opt.HalfClose)):
		c.end(ErrClosedByPeer, nil)
	case c.opt.IdleTimeout > 0 && passed(c.idleAt()):
		c.checkIdle()
	case passed(c.ownerAt):
		c.checkOwner(now)
	case passed(c.expires):
		c.expire(now)
	case len(c.opt.KeepAliveMessage) > 0 && passed(c.keepAliveAt()):
		c.written.Store(int64(time.Since(c.opened)))
		c.writer.keepAlive(c.opt.KeepAliveMessage)
	}
}

// touch notes that something was read or written.
func (c *tcpConnection) touch() {
	if c.opt.IdleTimeout > 0 {
		c.active.Store(int64(time.Since(c.opened)))
	}
}

func (c *tcpConnection) idleAt() time.Time {
	return c.opened.Add(time.Duration(c.active.Load())).Add(c.opt.IdleTimeout) // the sum of the two may overflow
}

// checkIdle ends the connection if it is idle. A peer whose kernel takes what ours has left is not.
func (c *tcpConnection) checkIdle() {
	before := c.unacked
	c.unacked = c.sock.unacked()
	if c.unacked > 0 && before <= 0 || c.unacked < before {
		c.touch()
		return
	}
	c.end(ErrIdle, nil)
}

func (c *tcpConnection) keepAliveAt() time.Time {
	return c.opened.Add(time.Duration(c.written.Load())).Add(c.opt.KeepAliveMessagePeriod)
}

// startLifetime says when the connection ends for its age.
func (c *tcpConnection) startLifetime() {
	if life := c.opt.MaxLifetime; life > 0 {
		c.expires = time.Now().Add(life - rand.N(life/10+1))
	}
}

// expire tells the owner that the connection ends for its age, and after CloseTimeout ends it.
func (c *tcpConnection) expire(now time.Time) {
	if c.expiring {
		c.end(ErrDrained, nil)
		return
	}
	c.expiring, c.expires = true, now.Add(c.opt.CloseTimeout)
	c.send(MessageTCPDraining{ID: c.process.ID(), Deadline: c.expires})
}
