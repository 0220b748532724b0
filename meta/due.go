package meta

import (
	"math/rand/v2"
	"time"
)

// brokenGrace is how long the read loop reads on after a write has failed, to find what the peer
// sent last.
const brokenGrace = time.Second

// nextLocked returns the next timed task of the read loop and when it is due; a zero time means
// that there is none. It is called before each wait, so it must not allocate.
func (c *tcpConnection) nextLocked() (at time.Time, do func(c *tcpConnection, now time.Time)) {
	first := func(when time.Time, what func(c *tcpConnection, now time.Time)) {
		if !when.IsZero() && (at.IsZero() || when.Before(at)) {
			at, do = when, what
		}
	}
	if c.broken != nil {
		if c.brokenUntil.IsZero() {
			c.brokenUntil = time.Now().Add(brokenGrace)
		}
		return c.brokenUntil, (*tcpConnection).endBroken
	}
	if !c.inputEnded.IsZero() {
		first(c.inputEnded.Add(c.opt.HalfClose), (*tcpConnection).endHalfClosed)
	}
	if c.opt.IdleTimeout > 0 {
		first(c.idleAt(), (*tcpConnection).checkIdle)
	}
	if c.sock.skipping {
		first(c.readAt.Add(endCheckTime), (*tcpConnection).checkEnd)
	}
	first(c.ownerAt, (*tcpConnection).checkOwner)
	first(c.expires, (*tcpConnection).expire)
	if len(c.opt.KeepAliveMessage) > 0 {
		first(c.keepAliveAt(), (*tcpConnection).keepAlive)
	}
	return at, do
}

// doDue runs the next task if it is due.
func (c *tcpConnection) doDue() {
	c.mu.Lock()
	at, do := c.nextLocked()
	c.mu.Unlock()
	if now := time.Now(); !at.IsZero() && !now.Before(at) {
		do(c, now)
	}
}

func (c *tcpConnection) endBroken(time.Time) { c.end(ErrReset, c.view().broken) }

func (c *tcpConnection) endHalfClosed(time.Time) { c.end(ErrClosedByPeer, nil) }

// checkEnd makes the read loop skip no more reads.
func (c *tcpConnection) checkEnd(time.Time) { c.sock.skipping = false }

// touch records that something was read or written.
func (c *tcpConnection) touch() {
	if c.opt.IdleTimeout > 0 {
		c.active.Store(int64(time.Since(c.opened)))
	}
}

func (c *tcpConnection) idleAt() time.Time {
	return c.opened.Add(time.Duration(c.active.Load())).Add(c.opt.IdleTimeout) // added one by one, since the sum of the two durations may overflow
}

// checkIdle ends the connection if it is idle. A connection is not idle while the peer's kernel
// still takes data that ours holds.
func (c *tcpConnection) checkIdle(time.Time) {
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

func (c *tcpConnection) keepAlive(time.Time) {
	c.written.Store(int64(time.Since(c.opened)))
	c.writer.keepAlive(c.opt.KeepAliveMessage)
}

// startLifetime sets when the connection reaches MaxLifetime.
func (c *tcpConnection) startLifetime() {
	if life := c.opt.MaxLifetime; life > 0 {
		c.expires = time.Now().Add(life - rand.N(life/10+1))
	}
}

// expire tells the owner that the connection has reached MaxLifetime, and ends it after
// CloseTimeout.
func (c *tcpConnection) expire(now time.Time) {
	if c.expiring {
		c.end(ErrDrained, nil)
		return
	}
	c.expiring, c.expires = true, now.Add(c.opt.CloseTimeout)
	c.send(MessageTCPDraining{ID: c.process.ID(), Deadline: c.expires})
}
