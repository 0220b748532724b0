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

// lingerTimeout is how long a closed connection waits for the peer to close too, so that a reset
// does not discard our last bytes.
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
		c.leave() // without the lock: the server takes this lock while it holds its own
		c.mu.Lock()
	}
	for c.phase < over {
		changed := c.changed.wait()
		c.mu.Unlock()
		<-changed
		c.mu.Lock()
	}
}

// end ends the connection for a reason and reports whether this is the first one. It may be called
// from any goroutine and does not block.
func (c *tcpConnection) end(reason, cause error) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endLocked(reason, cause)
}

func (c *tcpConnection) endLocked(reason, cause error) (first bool) {
	if c.reason != nil {
		return false
	}
	c.reason = &DisconnectError{Reason: reason, Cause: cause}
	c.interruptLocked()
	if c.cancel != nil {
		c.cancel()
	}
	return true
}

// finish completes the end of the connection. It runs once, at the end of Start, even if Start
// panics.
func (c *tcpConnection) finish() {
	c.end(ErrTerminated, gen.TerminateReasonPanic) // if nothing else ended it
	before := c.view()
	reason := before.reason
	c.logPanic(reason.Cause)
	late := reason.Reason == ErrClosedByPeer && c.opt.HalfClose == 0 && before.connectSent && c.onEnd == nil // with Reconnect the next connection gets the answers
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
	if tells && c.debugs() {
		c.log().Debug("connection with %s ended: %s", c.sock.RemoteAddr(), reason)
	}
	if c.onEnd != nil {
		c.retry = c.onEnd(reason)
	}
	if c.server != nil && before.connectSent {
		c.server.count(func(stats *ServerStats) { stats.Ended[reason.Reason.Error()]++; c.summed = true })
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
		_ = c.writer.syncAll() // close_notify, or an alert
	}
	if c.release != nil {
		c.logPanic(protect("release of CertManager.Track", func() error { c.release(); return nil }))
	}
	if tells && !late {
		told = c.disconnected(reason)
	}
	if reason.Reason == ErrReset || reason.Reason == ErrClosedByPeer || flushed != nil || timeout(reason.Cause) {
		c.sock.Close() // the peer has ended, so this sends no reset
	} else if before.phase >= open {
		c.sock.linger(lingerTimeout)
	} else { // a peer whose handshake failed keeps its slot no longer than one still in its handshake
		c.sock.linger(min(lingerTimeout, time.Until(c.opened.Add(c.opt.HandshakeTimeout))))
	}
	c.leave()
	c.inbox.discard()
	released := c.releaseActor()
	for wait := time.Millisecond; !told || !released; wait = min(2*wait, time.Second) {
		time.Sleep(wait)
		told = told || c.disconnected(reason)
		released = released || c.releaseActor()
	}
	c.advance(over)
}

const (
	// answerTime is how long a connection whose peer has ended its side waits for an answer from its
	// owner.
	answerTime = 500 * time.Millisecond
	// furtherTime is how long it waits for more answers if the owner has sent more answers than there
	// were messages, so that their number is unknown.
	furtherTime = 20 * time.Millisecond
	// singleTime is how long it waits if there was one answer to each message. Nearly all connections
	// wait that long and hold their memory: with 2 ms resumed handshakes cost 7 % less, but on a busy
	// machine an owner that had begun to answer lost the rest.
	singleTime = 10 * time.Millisecond
	// answerTick is the interval of checking for answers.
	answerTick = 2 * time.Millisecond
)

// awaitAnswers waits, after Disconnect was sent, while the owner still answers earlier messages.
func (c *tcpConnection) awaitAnswers(until time.Time) {
	in, out, heard := c.stats.messagesIn.Load(), c.stats.messagesOut.Load(), time.Now()
	for in > 0 && time.Now().Before(until) && c.view().broken == nil {
		began := time.Now()
		time.Sleep(answerTick)
		now, last := time.Now(), out
		out = c.stats.messagesOut.Load()
		switch {
		case out > last:
			heard = now
		case out == in && now.Sub(heard) >= singleTime && now.Sub(began) < 3*answerTick: // if it took longer the machine is busy, and the owner may have waited too
			return
		case out >= in && now.Sub(heard) >= furtherTime, now.Sub(heard) >= answerTime:
			return
		}
	}
}

// resetHidden reports whether a write got the error of the peer's reset, after which the kernel
// returns only EOF to reads. After a FIN the write gets EPIPE instead, and close_notify is an
// orderly end whatever follows.
func (c *tcpConnection) resetHidden(reason, flushed error) bool {
	ended := reason == ErrTruncated || reason == ErrClosedByPeer && c.stats.tls.Load() == nil
	return ended && (errors.Is(flushed, syscall.ECONNRESET) || errors.Is(flushed, syscall.ETIMEDOUT))
}

// disorderly reports whether a reason rules out close_notify: the TLS stream has failed, so
// crypto/tls has already sent an alert or the peer no longer reads.
var disorderly = is(ErrProtocol, ErrRefused, ErrHandshake, ErrReset, ErrTruncated, ErrStartTLS)

// disconnected sends Disconnect to the owner. It returns false if the owner's mailbox is full, and
// is then called again: a slow owner must not take an ended connection for an open one.
func (c *tcpConnection) disconnected(reason *DisconnectError) (told bool) {
	_ = c.changeOwner() // the Send below returns the same error
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
		c.log().Debug("connection with %s ended (%s); MessageTCPDisconnect not delivered to %v: %s", c.sock.RemoteAddr(), &copied, c.to, err)
	}
	return true
}

// leave releases what the server holds for this connection.
func (c *tcpConnection) leave() {
	if c.server != nil {
		c.server.left(c)
	}
}

// unreachable reports whether an error of Send or lookUp means that the receiver has ended. A meta
// process whose own parent has ended gets ErrNotAllowed.
var unreachable = is(gen.ErrNotAllowed, gen.ErrProcessTerminated, gen.ErrProcessUnknown, gen.ErrNameUnknown, gen.ErrMetaUnknown, gen.ErrAliasUnknown, gen.ErrNodeTerminated)

// drain stops accepting, waits until all connections have ended and returns how many of them it had
// to end.
func (s *tcpServer) drain(timeout time.Duration) (evicted int) {
	s.close()
	<-s.stopped // connections accepted before are served
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	for _, c := range open {
		c.draining(deadline)
	}
	if s.await(s.emptyLocked, ctx.Done()) {
		return 0
	}
	for _, c := range open {
		if c.end(ErrDrained, nil) {
			evicted++
		}
	}
	s.await(s.emptyLocked, nil) // each ends within its CloseTimeout
	return evicted
}

func (s *tcpServer) emptyLocked() bool { return len(s.open) == 0 }

// empty reports whether all connections have ended.
func (s *tcpServer) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.emptyLocked()
}

// draining makes the read loop tell the owner that the connection ends at deadline.
func (c *tcpConnection) draining(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drainBy = deadline; c.phase >= open {
		c.interruptLocked()
	}
}
