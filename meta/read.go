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

// bulkWait is how long a connection that has read much keeps its buffer for more.
const bulkWait = 50 * time.Millisecond

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
			if until := time.Now().Add(bulkWait); c.bulk && (due.IsZero() || until.Before(due)) {
				due = until
			}
			c.sock.SetReadDeadline(due) // with the lock held, so that an interrupt comes after it
			c.mu.Unlock()
			if c.bulk || c.sock.raw == nil {
				c.poll()
			} else if err := c.sock.wait(c.poll); err != nil {
				c.readFailed(err)
			}
		}
	}
}

// interruptLocked makes the read loop look at what has changed. A handshake is left alone.
func (c *tcpConnection) interruptLocked() {
	if c.cancel == nil {
		c.sock.SetReadDeadline(aLongTimeAgo)
	}
	c.changed.broadcast()
}

// mayDeliver says whether the read loop goes on: the connection is neither paused nor has the loop
// something else to do.
func (c *tcpConnection) mayDeliver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mayDeliverLocked()
}

func (c *tcpConnection) mayDeliverLocked() bool {
	return c.reason == nil && c.upgrade == nil && c.drainBy.IsZero() && c.newOwner == (gen.PID{}) && (c.broken == nil || !c.brokenUntil.IsZero()) &&
		c.batch.cost < readAhead*c.opt.WriteBuffer && !c.pausedLocked()
}

// pausedLocked says that nothing may be read or delivered for now.
func (c *tcpConnection) pausedLocked() bool {
	return c.opt.Active > 0 && c.credit <= 0 || c.heldBackLocked()
}

// heldBackLocked says that enough was read from a peer that does not take what is written to it.
func (c *tcpConnection) heldBackLocked() bool {
	return c.congested && c.ahead >= readAhead*c.opt.WriteBuffer
}

// poll reads and delivers until the read loop has something else to do, and then returns true.
// There are two ways to read:
//
//   - Within wait, all that has arrived is read before any of it is delivered, so that many small
//     messages are one for the owner, and their answers one write. Between two of them no buffer is
//     held. poll returns false to be called again.
//   - In bulk, once as much as half a buffer has come in one read, reads block, which costs less
//     than to ask whether there is more. When less comes, or nothing for bulkWait, it is over.
func (c *tcpConnection) poll() (done bool) {
	for {
		if (!c.inbox.empty() || c.inbox.err != nil) && !c.deliver() {
			return true
		}
		if c.inbox.err != nil {
			c.readFailed(c.inbox.err)
			return true
		}
		if c.bulk == c.sock.polling && c.sock.raw != nil {
			return true // to go on in the other way
		}
		switch err := c.fill(); {
		case err == error(errWouldBlock):
			if !c.inbox.empty() && !c.deliver() {
				return true
			}
			c.inbox.park()
			return false
		case err != nil: // the deadline has passed
			c.readFailed(err)
			return true
		}
	}
}

// fill reads until the buffer is full or nothing more has arrived; where reads block, once. An
// error after which no more comes is left in the inbox, any other is returned.
func (c *tcpConnection) fill() error {
	for !c.inbox.full() {
		n, err := c.stream.Read(c.inbox.space())
		c.inbox.end += n
		c.bulk = n >= scratchSize/2
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
			// crypto/tls calls it EOF too where the TCP stream ends between two records, without
			// close_notify.
			err = io.ErrUnexpectedEOF
		}
		c.inbox.err = err
		return nil
	}
	return nil
}

// deliver sends what is in the inbox as far as it is complete. It returns false if it had to stop.
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

// count counts a message that was delivered, and says whether it was the last one that is allowed,
// and whether the read loop goes on.
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
	// ownerTime is how long an owner that has answered is waited for until its next answer.
	ownerTime = 50 * time.Millisecond
	// ownerTick is how often it is looked whether it has.
	ownerTick = 2 * time.Millisecond
)

// awaitOwner waits for the owner to catch up: until it has answered half of the last batch, and all
// before, or answers no more. A peer that sends faster than its owner answers would fill the
// mailboxes. How many messages it answers is learned where it answers no more; one that answers
// none is hardly waited for, since nothing is known of it.
func (c *tcpConnection) awaitOwner() {
	b, in, out, idle := &c.batch, c.stats.messagesIn.Load(), c.stats.messagesOut.Load(), time.Duration(0)
	delivered := float64(in - b.in)
	due := b.due + b.rate*delivered
	for (b.rate == 0 && idle == 0 || float64(out) < due-b.rate*delivered/2) && idle < ownerTime {
		time.Sleep(ownerTick)
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

// send delivers a message to the owner; where it can't, the connection ends.
func (c *tcpConnection) send(message any) bool {
	if err := c.process.Send(c.to, message); err != nil {
		c.end(ErrOwnerGone, fmt.Errorf("%T not delivered to %v: %w", message, c.to, err))
		return false
	}
	return true
}

// pauseLocked waits, without reading, until something has changed: the owner allows more messages,
// the peer has taken what waited for it, or the connection comes to its end.
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

// readFailed ends the connection for an error of a read, unless that was only an interrupt or one
// side may still write.
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
