package meta

import "time"

// backlog is what waits for the kernel.
type backlog struct {
	rest   []byte
	writes []int // sizes of those that end in rest; over TLS they are records
}

// Write implements net.Conn. It may be called from several goroutines. While the writer has made it eager, it takes all of b without blocking: what the
// kernel does not take at once is kept for drain.
func (s *socket) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if !s.eager {
		if _, err := s.drainLocked(); err != nil {
			return 0, err
		}
		return s.write(b)
	}
	s.writes++
	s.taken += int32(len(b))
	n := 0
	if s.backlog == nil {
		var err error
		if n, err = s.writeNow(b); err != nil || n == len(b) {
			return n, err
		}
		s.backlog = &backlog{}
	}
	s.backlog.rest = append(s.backlog.rest, b[n:]...)
	s.backlog.writes = append(s.backlog.writes, len(b))
	return len(b), nil
}

// setEager turns the mode in which Write does not block on or off, and says whether bytes are left over. The mode needs raw.
func (s *socket) setEager(on bool) (behind bool) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.eager = on
	return s.backlog != nil
}

// behind says whether bytes are left over.
func (s *socket) behind() bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.backlog == nil {
		s.writes, s.taken = 0, 0
	}
	return s.backlog != nil
}

// drain writes what is left over of the writes that carried so many bytes of payload. It blocks, and returns how much of the payload an
// error has kept back: with a record that is cut off all that it carries, for it is no use to the peer.
func (s *socket) drain(payload int) (lost int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	writes, overhead, behind := int(s.writes), int(s.taken)-payload, s.backlog
	left, err := s.drainLocked()
	if left == 0 || overhead <= 0 {
		return left, err
	}
	for i := len(behind.writes) - 1; left > 0 && i >= 0; i-- {
		left -= behind.writes[i]
		lost += behind.writes[i] - overhead/writes // AEAD: the same for each record
	}
	return min(lost, payload), err
}

func (s *socket) drainLocked() (left int, err error) {
	if s.backlog == nil {
		return 0, nil
	}
	rest := s.backlog.rest
	n, err := s.write(rest)
	s.backlog, s.writes, s.taken = nil, 0, 0
	return len(rest) - n, err
}

// write blocks where the kernel does not take b at once, for writeTimeout at most for each chunk.
func (s *socket) write(b []byte) (written int, err error) {
	const chunk = 64 << 10 // so that a slow but steady peer is not cut off for the size of a message
	if s.raw != nil {
		if written, err = s.writeNow(b); err != nil || written == len(b) {
			return written, err
		}
	}
	for {
		part := b[written:min(len(b), written+chunk)]
		if s.writeTimeout > 0 {
			s.deadline = true
			s.setWriteDeadline(time.Now().Add(s.writeTimeout))
		}
		n, err := s.Conn.Write(part)
		written += n
		if err != nil || written == len(b) {
			return written, err
		}
	}
}

// setWriteDeadline sets a deadline no later than that of closeBy.
func (s *socket) setWriteDeadline(deadline time.Time) {
	s.Conn.SetWriteDeadline(deadline)
	if at := s.closing.Load(); at != 0 && (deadline.IsZero() || at < deadline.UnixNano()) {
		s.Conn.SetWriteDeadline(time.Unix(0, at))
	}
}

// SetWriteDeadline implements net.Conn. Only crypto/tls calls it, to bound its close_notify, and to make all writes after that fail: here the first
// is done by writeTimeout and closeBy, the second by crypto/tls itself.
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// closeBy bounds all writes, those under way too.
func (s *socket) closeBy(deadline time.Time) {
	s.closing.Store(deadline.UnixNano())
	s.Conn.SetWriteDeadline(deadline)
}
