package meta

import (
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// drainPiece is the size in bytes of the largest write to the kernel while the peer is slow.
	drainPiece = 16 << 10
	// maxBacklog limits the bytes that crypto/tls itself (answers to key updates) may add to a
	// backlog.
	maxBacklog = 256 << 10
)

var errBacklog = errors.New("the peer does not read what is written to it")

// output is the writing side of a socket. Write never blocks: it writes what the kernel takes at
// once and keeps the rest in the backlog. The caller must then call drain, which blocks.
type output struct {
	backlog []byte        // accepted by Write but not by the kernel
	timeout time.Duration // how long the peer may take nothing; set before the first write
	by      time.Time     // when all writes end; zero: not closing
	attempt
}

// attempt is a non-blocking write through the descriptor. It is reused, so that a write does not
// allocate.
type attempt struct {
	once func(fd uintptr) (done bool) // writeOnce
	rest []byte
	err  error
}

// Write implements net.Conn. It may be called from several goroutines. During a handshake it blocks
// and keeps no backlog.
func (s *socket) Write(b []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.handshake != nil:
		s.handshake.leave() // the peer may take nothing
		if n, err = s.Conn.Write(b); err == nil {
			err = s.handshake.enter()
		}
		return n, err
	case len(s.backlog) > maxBacklog:
		return 0, errBacklog
	case s.raw != nil && len(s.backlog) == 0:
		if n, err = s.writeNow(b); err != nil {
			return n, err
		}
	}
	s.backlog = append(s.backlog, b[n:]...)
	return len(b), nil
}

// writeNow writes as much as the kernel takes without blocking.
func (s *socket) writeNow(b []byte) (int, error) {
	s.attempt.rest, s.attempt.err = b, nil
	err := s.raw.Write(s.attempt.once)
	if err == nil {
		err = s.attempt.err
	}
	n := len(b) - len(s.attempt.rest)
	s.attempt.rest = nil
	return n, err
}

// owed returns the length of the backlog.
func (s *socket) owed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.backlog)
}

// drain blocks until the backlog is empty. It returns an error if the peer's kernel takes nothing
// for timeout, or if the deadline of closeBy passes. One goroutine at a time calls it.
func (s *socket) drain(progress func()) error {
	if s.owed() == 0 {
		return nil
	}
	tick := s.timeout
	if s.raw != nil {
		tick /= 4 // to notice in time what the peer's kernel takes; a wrapper may fail for good after a deadline
	}
	last, unacked := time.Now(), s.unacked()
	for {
		piece := s.nextPiece(tick)
		if len(piece) == 0 {
			return nil
		}
		n, err := s.Conn.Write(piece)
		closing := s.drained(n)
		switch before := unacked; {
		case err != nil && !timeout(err):
			return err
		case n > 0:
		default:
			// Our kernel has a send buffer and does not report room in it before a third is free.
			if unacked = s.unacked(); closing || unacked == before && time.Since(last) >= s.timeout {
				return err
			}
			if unacked == before {
				continue
			}
		}
		last = time.Now()
		progress()
	}
}

// nextPiece returns the beginning of the backlog and sets the deadline for writing it.
func (s *socket) nextPiece(tick time.Duration) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.backlog) > 0 {
		deadline := time.Now().Add(tick)
		if !s.by.IsZero() && s.by.Before(deadline) {
			deadline = s.by
		}
		s.Conn.SetWriteDeadline(deadline)
	}
	return s.backlog[:min(len(s.backlog), drainPiece)]
}

// drained removes n bytes from the backlog, and reports whether the deadline of closeBy has passed.
func (s *socket) drained(n int) (closing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.backlog = s.backlog[n:]; len(s.backlog) == 0 {
		s.backlog = nil
		s.Conn.SetWriteDeadline(s.by) // an expired deadline would fail the next Write
	}
	return !s.by.IsZero() && !time.Now().Before(s.by)
}

// CloseWrite sends FIN, after which the peer reads EOF.
func (s *socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetWriteDeadline implements net.Conn. Only crypto/tls calls it, to limit its close_notify and to
// make later writes fail. Here drain limits close_notify, and crypto/tls itself refuses later
// writes.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// closeBy limits all writes, including running ones.
func (s *socket) closeBy(deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = deadline
	s.Conn.SetWriteDeadline(deadline)
}

// timeout reports whether err is due to a deadline that we set. ETIMEDOUT is not: it means that the
// kernel has given up on the peer.
func timeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}
