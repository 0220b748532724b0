package meta

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// brokenGrace is how long the read loop looks for the peer's last words after a write has failed.
const brokenGrace = time.Second

// readAhead is how many times WriteBuffer is read while what was written before waits for the peer.
const readAhead = 16

// read delivers what the peer sends until the connection ends.
func (c *tcpConnection) read() {
	pump := c.pump
	for c.ended.Load() == nil {
		switch {
		case c.upgrade.Load() != nil:
			c.runUpgrade()
			continue
		case c.paused():
			c.pause()
			continue
		}
		c.sock.SetReadDeadline(c.readDeadline())
		if c.interrupted() {
			continue // it was interrupted before the deadline was set, which so has undone the interrupt
		}
		if c.sock.raw == nil {
			pump()
		} else if err := c.sock.wait(pump); err != nil {
			c.readFailed(err)
		}
	}
}

// interrupted says that the read loop has something else to do than to read.
func (c *tcpConnection) interrupted() bool {
	return c.ended.Load() != nil || c.upgrade.Load() != nil || c.broken.Load() != nil && c.brokenUntil == 0
}

// paused says that nothing may be read or delivered for now.
func (c *tcpConnection) paused() bool {
	return c.opt.Active > 0 && c.credit.Load() <= 0 || c.heldBack()
}

// heldBack says that enough was read from a peer that does not take what is written to it.
func (c *tcpConnection) heldBack() bool {
	limit := c.readLimit.Load()
	return limit != 0 && c.stats.bytesIn.Load() >= limit
}

// limitReading is called when the message goroutine begins to wait for the peer. Reading goes on, since a peer may well write all
// before it reads, but not without end, since what the owner answers waits in the mailbox. Active is the owner's own limit.
func (c *tcpConnection) limitReading() {
	if c.opt.Active == 0 && c.readLimit.Load() == 0 {
		c.readLimit.Store(c.stats.bytesIn.Load() + readAhead*uint64(c.opt.WriteBuffer))
	}
}

// readOn is called with each flushRequest: what was in the mailbox when that was sent is written or in the write buffer.
func (c *tcpConnection) readOn() {
	if c.readLimit.Load() != 0 {
		c.readLimit.Store(0)
		c.wakeUp()
	}
}

// pump reads until nothing is left to read and delivers it. It returns true where the read loop
// must look further, because the connection is paused, interrupted or at its end, and false to be called again
// when there is more.
func (c *tcpConnection) pump() (done bool) {
	reads, all := 0, false
	for {
		if c.interrupted() {
			return true
		}
		delivered := c.deliver()
		if c.inbox.err != nil && c.inbox.empty() {
			c.readFailed(c.inbox.err)
			return true
		}
		if !delivered {
			return true
		}
		if all {
			c.inbox.park()
			hangUps.watch(c)
			return false
		}
		for c.inbox.err == nil && !c.inbox.full() {
			n, err := c.stream.Read(c.inbox.space())
			c.inbox.end += n
			c.stats.bytesIn.Add(uint64(n))
			if n > 0 {
				c.touch()
			}
			switch {
			case err == nil:
				reads++
			case err == error(errWouldBlock):
				c.lone = reads < 2
				if !c.deliver() || c.interrupted() {
					return true
				}
				c.inbox.park()
				return false
			case timeout(err):
				c.readFailed(err)
				return true
			case err == io.EOF && c.sock.eof && c.stats.tls.Load() != nil:
				// crypto/tls calls it EOF too where the TCP stream ends between two records, without close_notify.
				c.inbox.err = io.ErrUnexpectedEOF
			default:
				c.inbox.err = err
			}
			// One whole record, as the last time: the peer waits for its answer. To read once more in order to find nothing would cost more than all
			// else here; hangUps finds the end of the stream, which alone is not told of a second time. If the buffer is full, crypto/tls may
			// keep the rest of the record.
			all = c.lone && reads == 1 && c.sock.single && c.inbox.err == nil && !c.inbox.full() && hangUps.worthwhile()
			if all || !c.sock.in {
				break // what came is all there is for now
			}
		}
	}
}

// deliver sends what is in the inbox as far as it is complete. It returns false if it had to stop, because the connection is paused or has ended.
func (c *tcpConnection) deliver() bool {
	for c.ended.Load() == nil && !c.paused() {
		data, reason, cause := c.inbox.next()
		if reason != nil {
			c.end(reason, cause)
			return false
		}
		if data == nil {
			return true
		}
		c.stats.messagesIn.Add(1)
		last := c.opt.Active > 0 && c.credit.Add(-1) == 0
		if !c.send(MessageTCP{ID: c.process.ID(), Data: data}) || last && !c.send(MessageTCPPassive{ID: c.process.ID()}) {
			return false
		}
	}
	return false
}

// send delivers a message to the owner; where it can't, the connection ends.
func (c *tcpConnection) send(message any) bool {
	if err := c.process.Send(c.to, message); err != nil {
		c.end(ErrOwnerGone, fmt.Errorf("%T not delivered to %v: %w", message, c.to, err))
		return false
	}
	return true
}

// pause waits, without reading, until something has changed: the owner allows more messages, the peer has taken what waited for it, or
// the connection comes to its end.
func (c *tcpConnection) pause() {
	wake := c.wake.Load()
	if wake == nil {
		made := make(chan struct{}, 1)
		c.wake.Store(&made)
		return // to look again: what has changed before that sent nothing
	}
	if broken := c.broken.Load(); broken != nil {
		c.end(ErrReset, *broken)
		return
	}
	if c.heldBack() && c.process.Send(c.process.ID(), flushRequest{}) != nil {
		c.readLimit.Store(0) // the mailbox is full, so has a bound of its own
		return
	}
	c.inbox.park()
	var idle <-chan time.Time
	if c.opt.IdleTimeout > 0 {
		timer := time.NewTimer(time.Until(c.idleAt()))
		defer timer.Stop()
		idle = timer.C
	}
	select {
	case <-*wake:
	case <-idle:
		c.checkIdle()
	}
}

// wakeUp makes a paused read loop look at what has changed.
func (c *tcpConnection) wakeUp() {
	if wake := c.wake.Load(); wake != nil {
		select {
		case *wake <- struct{}{}:
		default:
		}
	}
}

// touch notes that something was read or written.
func (c *tcpConnection) touch() {
	if c.opt.IdleTimeout > 0 {
		c.stats.active.Store(time.Now().UnixNano())
	}
}

func (c *tcpConnection) idleAt() time.Time {
	return time.Unix(0, c.stats.active.Load()).Add(c.opt.IdleTimeout)
}

func (c *tcpConnection) checkIdle() {
	if c.opt.IdleTimeout > 0 && !time.Now().Before(c.idleAt()) {
		c.end(ErrIdle, nil)
	}
}

func (c *tcpConnection) readDeadline() time.Time {
	switch {
	case c.broken.Load() != nil:
		if c.brokenUntil == 0 {
			c.brokenUntil = time.Now().Add(brokenGrace).UnixNano()
		}
		return time.Unix(0, c.brokenUntil)
	case c.opt.IdleTimeout > 0:
		return c.idleAt()
	default:
		return time.Time{}
	}
}

// readFailed ends the connection for an error of a read, unless that was only an interrupt.
func (c *tcpConnection) readFailed(err error) {
	broken := c.broken.Load()
	switch {
	case !timeout(err):
		reason := readReason(err)
		if reason == ErrClosedByPeer {
			err = nil
		}
		if broken != nil {
			err = errors.Join(err, *broken)
		}
		c.end(reason, err)
	case broken != nil && c.brokenUntil != 0 && time.Now().UnixNano() >= c.brokenUntil:
		c.end(ErrReset, *broken)
	default:
		c.checkIdle()
	}
}

// readReason sorts the errors of a read after the handshake.
func readReason(err error) error {
	_, noRecord := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, io.EOF):
		return ErrClosedByPeer
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrTruncated
	case errors.Is(err, errSpoofedProxy), noRecord:
		return ErrProtocol
	case isAlert(err):
		return ErrRefused
	case isOp(err, "local error"), strings.HasPrefix(err.Error(), "tls: "):
		return ErrProtocol
	default:
		return ErrReset
	}
}
