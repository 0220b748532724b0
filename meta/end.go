package meta

import (
	"context"
	"errors"
	"maps"
	"slices"
	"syscall"
	"time"

	"ergo.services/ergo/gen"
)

// lingerTimeout is how long a closed connection waits for the peer to close too, so that our last
// bytes are not lost in a reset.
const lingerTimeout = 500 * time.Millisecond

// Terminate implements gen.MetaBehavior. It ends the connection, in any phase, and returns when it
// has ended.
func (c *tcpConnection) Terminate(reason error) {
	c.end(ErrTerminated, reason)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == created {
		c.phase = over
		c.mu.Unlock()
		c.sock.Close()
		c.leave() // without the lock: the server has one of its own, with which it asks for what this one guards
		c.mu.Lock()
	}
	for c.phase < over {
		changed := c.changed.wait()
		c.mu.Unlock()
		<-changed
		c.mu.Lock()
	}
}

// end ends the connection for a reason, and returns whether this was the first one. It may be
// called from any goroutine and does not block.
func (c *tcpConnection) end(reason, cause error) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endLocked(reason, cause)
}

func (c *tcpConnection) endLocked(reason, cause error) (first bool) {
	if c.reason != nil {
		if c.phase == closing {
			c.cut = true
			c.changed.broadcast()
		}
		return false
	}
	c.reason = &DisconnectError{Reason: reason, Cause: cause}
	c.interruptLocked()
	if c.cancel != nil {
		c.cancel()
	}
	return true
}

// finish brings the connection to its end. It runs once, at the end of Start, also when that
// panics.
func (c *tcpConnection) finish() {
	c.end(ErrTerminated, gen.TerminateReasonPanic) // where nothing else ended it
	before := c.view()
	reason := before.reason
	c.logPanic(reason.Cause)
	late := reason.Reason == ErrClosedByPeer && c.opt.HalfClose == 0 && before.connectSent && c.onEnd == nil // else the next connection has the answers
	tells, told := before.connectSent || c.server == nil, true
	if !late {
		c.writer.close()
	}
	c.advance(closing)
	closeBy := time.Now().Add(c.opt.CloseTimeout)
	c.sock.closeBy(closeBy)
	flushed := c.writer.sync()
	if c.resetHidden(reason.Reason, flushed) {
		reason = &DisconnectError{Reason: ErrReset, Cause: flushed}
		c.mu.Lock()
		c.reason = reason
		c.mu.Unlock()
	}
	if tells {
		c.logLife("connection with %s ended: %s", c.sock.RemoteAddr(), reason)
	}
	if c.onEnd != nil {
		c.retry = c.onEnd(reason)
	}
	if c.server != nil && before.connectSent {
		c.server.count(func(stats *ServerStats) { stats.Ended[reason.Reason.Error()]++ })
	}
	if late {
		told = c.disconnected(reason)
		c.awaitAnswers(closeBy)
		c.writer.close()
		flushed = c.writer.sync()
	}
	if flushed == nil && !disorderly(reason.Reason) && c.stream != stream(c.sock) {
		c.stream.CloseWrite() // close_notify; none after an alert
	}
	if flushed == nil {
		c.sock.drain(func() {}) // what crypto/tls itself has written last
	}
	if c.release != nil {
		c.logPanic(protect("release of CertManager.Track", func() error { c.release(); return nil }))
	}
	if tells && !late {
		told = c.disconnected(reason)
	}
	if reason.Reason == ErrReset || reason.Reason == ErrClosedByPeer || flushed != nil || timeout(reason.Cause) {
		c.sock.Close() // nothing comes any more that could turn it into a reset
	} else if before.phase >= open {
		c.sock.linger(lingerTimeout)
	} else { // a peer that failed holds its slot no longer than one that is still trying
		c.sock.linger(min(lingerTimeout, time.Until(c.opened.Add(c.opt.HandshakeTimeout))))
	}
	c.releaseActor()
	c.leave()
	c.inbox.discard()
	for wait := time.Millisecond; !told; wait = min(2*wait, time.Second) {
		time.Sleep(wait)
		told = c.disconnected(reason)
	}
	c.advance(over)
}

const (
	// answerTime is how long a connection whose peer has ended its side waits for an answer of its
	// owner.
	answerTime = 500 * time.Millisecond
	// furtherTime is how long it waits for more if the owner has answered each message, and more than
	// once: then there may be any number of answers.
	furtherTime = 20 * time.Millisecond
	// answerTick is how long it waits if there was one answer to each message. Nearly all connections
	// wait so long and hold their memory: with 10 ms resumed handshakes cost 7 % more.
	answerTick = 2 * time.Millisecond
)

// awaitAnswers waits, after Disconnect was sent, as long as the owner sends answers to what came
// before it.
func (c *tcpConnection) awaitAnswers(until time.Time) {
	in, out, heard := c.stats.messagesIn.Load(), c.stats.messagesOut.Load(), time.Now()
	for in > 0 && time.Now().Before(until) {
		if p := c.view(); p.cut || p.broken != nil {
			return
		}
		began := time.Now()
		time.Sleep(answerTick)
		now, last := time.Now(), out
		out = c.stats.messagesOut.Load()
		switch {
		case out > last:
			heard = now
		case out == in && now.Sub(began) < 3*answerTick: // else the machine is busy: the owner may have waited too
			return
		case out >= in && now.Sub(heard) >= furtherTime, now.Sub(heard) >= answerTime:
			return
		}
	}
}

// resetHidden says that the peer's reset was told to a write, after which the kernel lets reads see
// no more than an end. After a FIN it tells a write EPIPE instead, and close_notify is an end in
// order whatever comes then.
func (c *tcpConnection) resetHidden(reason, flushed error) bool {
	ended := reason == ErrTruncated || reason == ErrClosedByPeer && c.stats.tls.Load() == nil
	return ended && (errors.Is(flushed, syscall.ECONNRESET) || errors.Is(flushed, syscall.ETIMEDOUT))
}

// disorderly says that the TLS stream can't be closed with close_notify: it has failed, after which
// crypto/tls has sent an alert of its own or the peer does not listen.
var disorderly = is(ErrProtocol, ErrRefused, ErrHandshake, ErrReset, ErrTruncated, ErrStartTLS)

// disconnected tells the owner. It returns false where the owner's mailbox is full, and is then
// called again: an owner that cannot keep up must not be left with a connection that it thinks is
// open.
func (c *tcpConnection) disconnected(reason *DisconnectError) (told bool) {
	_ = c.changeOwner() // an error comes again
	copied := *reason
	w := c.writer.stats()
	copied.Accepted, copied.Written = w.accepted, w.sent
	err := c.process.Send(c.to, MessageTCPDisconnect{ID: c.process.ID(), Reason: &copied, Retry: c.retry})
	if errors.Is(err, gen.ErrProcessMailboxFull) {
		return false
	}
	c.mu.Lock()
	c.disconnectSent = true
	c.mu.Unlock()
	if err != nil {
		c.log().Debug("connection with %s ended (%s); its owner %v was not told: %s", c.sock.RemoteAddr(), &copied, c.to, err)
	}
	return true
}

// leave gives back what the server holds for this connection.
func (c *tcpConnection) leave() {
	if c.server != nil {
		c.server.left(c)
	}
}

// unreachable says that the error of Send means that there is nobody any more. ErrNotAllowed is that
// of a meta process whose own parent has ended.
var unreachable = is(gen.ErrNotAllowed, gen.ErrProcessTerminated, gen.ErrProcessUnknown, gen.ErrMetaUnknown, gen.ErrAliasUnknown, gen.ErrNodeTerminated)

// drain stops accepting and returns when all connections have ended, with the number that it had to
// end.
func (s *tcpServer) drain(timeout time.Duration) (evicted int) {
	s.close()
	<-s.stopped // what was accepted before is served
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	for _, c := range open {
		c.draining(deadline)
	}
	empty := func() bool { return len(s.open) == 0 }
	if s.await(empty, ctx.Done()) {
		return 0
	}
	for _, c := range open {
		if c.end(ErrDrained, nil) {
			evicted++
		}
	}
	s.await(empty, nil) // each ends within its CloseTimeout
	return evicted
}

// draining has the read loop tell the owner that the connection ends at a time.
func (c *tcpConnection) draining(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drainBy = deadline; c.phase >= open {
		c.interruptLocked()
	}
}
