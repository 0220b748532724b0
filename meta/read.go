package meta

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"ergo.services/ergo/gen"
)

const (
	// denseTime is the time between two reads below which a connection skips reads: see readNow.
	denseTime = 50 * time.Millisecond
	// endCheckTime is how long it does so. A FIN that came with data, but without close_notify, is
	// noticed after that time at the latest.
	endCheckTime = 500 * time.Millisecond
)

// read delivers what the peer sends until the connection ends.
func (c *tcpConnection) read() {
	for {
		c.mu.Lock()
		switch {
		case c.newOwner != (gen.PID{}):
			c.mu.Unlock()
			if err := c.changeOwner(); err != nil {
				c.end(ErrOwnerGone, fmt.Errorf("MessageTCPConnect not delivered to %v: %w", c.to, err))
			}
		case !c.drainBy.IsZero():
			message := MessageTCPDraining{ID: c.process.ID(), Deadline: c.drainBy}
			c.drainBy = time.Time{}
			c.mu.Unlock()
			c.send(message)
		case c.reason != nil:
			c.mu.Unlock()
			return
		case c.upgrade != nil:
			c.mu.Unlock()
			c.runUpgrade()
		case c.batch.cost >= readAhead*c.opt.WriteBuffer:
			c.mu.Unlock()
			c.awaitOwner()
		case c.pausedLocked(), !c.inputEnded.IsZero():
			c.pauseLocked()
			c.mu.Unlock()
		default:
			due, _ := c.nextLocked()
			c.sock.SetReadDeadline(due) // with the lock held, so that an interrupt comes after it
			c.mu.Unlock()
			if c.sock.raw == nil {
				c.poll()
			} else if err := c.sock.wait(c.poll); err != nil {
				c.readFailed(err)
			}
		}
	}
}

// interruptLocked makes the read loop check what has changed. It does not interrupt a handshake.
func (c *tcpConnection) interruptLocked() {
	if c.cancel == nil {
		c.sock.SetReadDeadline(aLongTimeAgo)
	}
	c.changed.broadcast()
}

// mayDeliver reports whether the read loop may go on: the connection is not paused, and the loop
// has nothing else to do.
func (c *tcpConnection) mayDeliver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mayDeliverLocked()
}

func (c *tcpConnection) mayDeliverLocked() bool {
	return !c.askedLocked() && (c.broken == nil || !c.brokenUntil.IsZero()) && c.batch.cost < readAhead*c.opt.WriteBuffer && !c.pausedLocked()
}

// pausedLocked reports whether reading and delivering is paused.
func (c *tcpConnection) pausedLocked() bool {
	return c.opt.Active > 0 && c.credit <= 0 || c.heldBackLocked()
}

// heldBackLocked reports whether enough was read from a peer that does not read what is written to
// it.
func (c *tcpConnection) heldBackLocked() bool {
	return c.congested && c.ahead >= readAhead*c.opt.WriteBuffer
}

// poll reads and delivers until the read loop has something else to do, and then returns true.
// Within wait it reads all data that has arrived before it delivers any, so that the owner gets
// many small messages as one and answers with one write. It returns false to be called again when
// more has arrived; until then no buffer is held.
func (c *tcpConnection) poll() (done bool) {
	for {
		if (!c.inbox.empty() || c.inbox.err != nil) && !c.deliver() {
			return true
		}
		if c.inbox.err != nil {
			c.readFailed(c.inbox.err)
			return true
		}
		switch err := c.fill(); {
		case err == error(errWouldBlock):
			if !c.inbox.empty() && !c.deliver() {
				return true
			}
			c.inbox.park()
			return c.startSkipping()
		case err != nil: // the deadline has passed
			c.readFailed(err)
			return true
		}
	}
}

// startSkipping makes a TLS connection skip reads if the last one was a short time ago. It then
// returns true, so that the read loop waits for endCheckTime at most.
func (c *tcpConnection) startSkipping() bool {
	if c.sock.skipping || c.stream == stream(c.sock) {
		return false
	}
	last := c.readAt
	c.readAt = time.Now()
	c.sock.skipping = c.readAt.Sub(last) < denseTime
	return c.sock.skipping
}

// fill reads until the buffer is full or nothing more has arrived; if reads block, it reads once. A
// final error is stored in the inbox, any other is returned.
func (c *tcpConnection) fill() error {
	for !c.inbox.full() {
		n, err := c.stream.Read(c.inbox.space())
		c.inbox.end += n
		if n > 0 {
			c.stats.bytesIn.Add(uint64(n))
			c.touch()
		}
		switch {
		case err == nil && c.sock.polling:
			continue
		case err == nil, err == error(errWouldBlock), timeout(err):
			return err
		case err == io.EOF && c.sock.eof && c.stats.tls.Load() != nil:
			// crypto/tls also returns EOF if the TCP stream ends between two records without close_notify.
			err = io.ErrUnexpectedEOF
		}
		c.inbox.err = err
		return nil
	}
	return nil
}

// deliver sends the complete messages in the inbox. It returns false if it had to stop.
func (c *tcpConnection) deliver() bool {
	for more := c.mayDeliver(); more; {
		data, reason, cause := c.inbox.next()
		if reason != nil {
			c.end(reason, cause)
			return false
		}
		if data == nil {
			return true
		}
		c.stats.messagesIn.Add(1)
		if !c.send(MessageTCP{ID: c.process.ID(), Data: data}) {
			return false
		}
		var last bool
		if last, more = c.count(cap(data)); last && !c.send(MessageTCPPassive{ID: c.process.ID()}) {
			return false
		}
	}
	return false
}

// count counts a delivered message, and reports whether it was the last one allowed and whether the
// read loop goes on.
func (c *tcpConnection) count(size int) (last, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch.cost += messageCost + size
	if c.congested {
		c.ahead += messageCost + max(size, c.perReply)
	}
	c.credit--
	return c.opt.Active > 0 && c.credit == 0, c.mayDeliverLocked()
}

const (
	// ownerTime is how long to wait for the next answer of an owner that has answered before.
	ownerTime = 50 * time.Millisecond
	// ownerTick is the interval of checking for that answer.
	ownerTick = 2 * time.Millisecond
)

// awaitOwner waits for the owner to catch up: until it has answered half of the last batch and all
// earlier ones, or stops answering. Otherwise a peer that sends faster than the owner answers would
// fill the mailboxes. The rate of answers is learned when the owner stops answering. For an owner
// that never answers the wait is short, since its progress is unknown.
func (c *tcpConnection) awaitOwner() {
	b, in, out, idle := &c.batch, c.stats.messagesIn.Load(), c.stats.messagesOut.Load(), time.Duration(0)
	delivered := float64(in - b.in)
	due := b.due + b.rate*delivered
	for (b.rate == 0 && idle == 0 || float64(out) < due-b.rate*delivered/2) && idle < ownerTime {
		time.Sleep(ownerTick)
		if c.doDue(); c.asked() { // the wait continues when that is done
			return
		}
		idle += ownerTick
		if last := out; c.stats.messagesOut.Load() != last {
			out, idle = c.stats.messagesOut.Load(), 0
		}
	}
	rate := b.rate
	if idle >= ownerTime || float64(out) > due {
		rate, due = min(1, float64(out-b.out)/delivered), float64(out)
	}
	c.batch = batch{in: in, out: out, due: due, rate: rate}
}

// send delivers a message to the owner, or ends the connection if it can't.
func (c *tcpConnection) send(message any) bool {
	if err := c.process.Send(c.to, message); err != nil {
		c.end(ErrOwnerGone, fmt.Errorf("%T not delivered to %v: %w", message, c.to, err))
		return false
	}
	return true
}

// pauseLocked waits without reading until the owner allows more messages, the peer has taken the
// waiting data, or the connection ends.
func (c *tcpConnection) pauseLocked() {
	if c.broken != nil {
		c.endLocked(ErrReset, c.broken)
		return
	}
	c.inbox.park()
	changed := c.changed.wait()
	due, _ := c.nextLocked()
	c.mu.Unlock()
	defer c.mu.Lock()
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
	case <-timer:
		c.doDue()
	}
}

// readFailed ends the connection after a read error, unless the error is an interrupt or one side
// may still write.
func (c *tcpConnection) readFailed(err error) {
	broken := c.view().broken
	switch {
	case timeout(err):
		c.doDue()
	case broken != nil:
		c.end(readReason(err), errors.Join(err, broken))
	case readReason(err) != ErrClosedByPeer:
		c.end(readReason(err), err)
	case c.opt.HalfClose == 0:
		c.end(ErrClosedByPeer, nil)
	default:
		c.inputEnded = time.Now()
		c.send(MessageTCPEOF{ID: c.process.ID()})
	}
}

// readReason returns the reason for a read error after the handshake.
func readReason(err error) error {
	_, noRecord := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, io.EOF):
		return ErrClosedByPeer
	case errors.Is(err, io.ErrUnexpectedEOF):
		return ErrTruncated
	case noRecord:
		return ErrProtocol
	case isAlert(err):
		return ErrRefused
	case isOp(err, "local error"), strings.HasPrefix(err.Error(), "tls: "):
		return ErrProtocol
	default:
		return ErrReset
	}
}
