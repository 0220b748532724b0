package meta

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errWouldBlock is what a non-blocking read of a socket answers where nothing has arrived. It
// is temporary in the sense of net.Error, which crypto/tls does not make sticky: it keeps
// a half-read record and goes on with the next Read (TestTLSKeepsHalfReadRecord holds it to that).
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// recordHeader is the size in bytes of what precedes each TLS record (RFC 8446 section 5.1).
const recordHeader = 5

// recordData begins the header of a record with application data (RFC 8446 section 5.2).
var recordData = [3]byte{23, 3, 3}

// peekTimeout is how long peek waits where a read can't be made without blocking.
const peekTimeout = 5 * time.Millisecond

// aLongTimeAgo as a deadline makes a blocked call return at once.
var aLongTimeAgo = time.Unix(1, 0)

// socket is the connection under the TLS layer, or the connection itself where there is none.
//
// Reads are made by one goroutine at a time. They block, but for those within wait, which answer errWouldBlock where
// there is nothing. Writes block too, but for those while it is eager; they are bounded by writeTimeout each and, once closeBy was
// called, by that time.
type socket struct {
	net.Conn
	raw    syscall.RawConn // nil: wait can't be used
	fd     uintptr         // valid within wait
	in     bool            // within wait
	single bool            // the last read brought all there was, and it looks like one TLS record: what a peer makes look so delays but itself
	eof    bool            // the peer's FIN was read

	pending []byte      // bytes read ahead of the TLS layer, served first
	guard   *proxyGuard // nil: no look-out for PROXY headers
	pass    *pass       // not nil during a server's handshake

	writing  sync.Mutex // one write at a time; guards all up to the empty line
	backlog  *backlog   // taken by Write but not by the kernel; nil: nothing
	writes   int32      // that were taken since behind was false
	taken    int32      // their bytes
	eager    bool       // Write does not block
	deadline bool       // for writes, one is set
	writeRaw func(fd uintptr) bool
	toWrite  []byte // of writeRaw, as are the two below
	wrote    int
	writeErr error

	remote       atomic.Pointer[net.Addr] // in place of the connection's own; nil: its own
	writeTimeout time.Duration            // 0 during the handshake, which has a deadline of its own
	closing      atomic.Int64             // unix nanoseconds; 0: not closing
}

// backlog is what waits for the kernel.
type backlog struct {
	rest   []byte
	writes []int // sizes of those that end in rest; over TLS they are records
}

func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn}
	if sc, ok := conn.(syscall.Conn); ok && canWait {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw, s.writeRaw = raw, s.writeOnce
		}
	}
	return s
}

// RemoteAddr implements net.Conn. It is the client's address from the PROXY header where there was one.
func (s *socket) RemoteAddr() net.Addr {
	if remote := s.remote.Load(); remote != nil {
		return *remote
	}
	return s.Conn.RemoteAddr()
}

// Read implements net.Conn. Only crypto/tls and the connection's read loop call it.
func (s *socket) Read(b []byte) (int, error) {
	if s.pass != nil {
		return s.pass.hello.read(s, b)
	}
	return s.readSome(b)
}

func (s *socket) readSome(b []byte) (int, error) {
	if len(s.pending) > 0 {
		n := copy(b, s.pending)
		if s.pending = s.pending[n:]; len(s.pending) == 0 {
			s.pending = nil
		}
		return n, nil
	}
	n, err := s.read(b)
	if err == io.EOF {
		s.eof = true
	}
	if s.guard != nil && s.guard.spoofed(b[:n]) {
		return 0, errSpoofedProxy
	}
	return n, err
}

func (s *socket) read(b []byte) (int, error) {
	if s.in {
		return s.readNow(b)
	}
	if s.pass == nil {
		return s.Conn.Read(b)
	}
	// A handshake holds its place at the gate while it computes, not while it waits for its peer.
	s.pass.leave()
	n, err := s.readWaiting(b)
	if err == nil {
		err = s.pass.enter()
	}
	return n, err
}

// readWaiting reads, and waits until there is something, in a way of which the scheduler need not be told: see directRead.
func (s *socket) readWaiting(b []byte) (n int, err error) {
	if s.raw == nil {
		return s.Conn.Read(b)
	}
	failed := s.wait(func() bool {
		n, err = s.readNow(b)
		return err != error(errWouldBlock)
	})
	if failed != nil {
		return 0, failed
	}
	return n, err
}

// wait calls pump until it returns true: at once and then each time that there is something to
// read. Reads of the socket within pump do not block. Between the calls nothing is held but this goroutine. It
// returns early with the error of a passed read deadline or a closed connection.
func (s *socket) wait(pump func() (done bool)) error {
	return s.raw.Read(func(fd uintptr) bool {
		s.fd, s.in = fd, true
		done := pump()
		s.in = false
		return done
	})
}

// peek reads what is there without waiting for more. Nothing is no error.
func (s *socket) peek(b []byte) (n int, err error) {
	if s.raw == nil {
		s.SetReadDeadline(time.Now().Add(peekTimeout))
		if n, err = s.Read(b); timeout(err) {
			err = nil
		}
		return n, err
	}
	s.SetReadDeadline(time.Time{})
	waitErr := s.wait(func() bool {
		if n, err = s.Read(b); err == error(errWouldBlock) {
			err = nil
		}
		return true
	})
	return n, errors.Join(waitErr, err)
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
	for {
		at := s.closing.Load()
		if at != 0 && (deadline.IsZero() || at < deadline.UnixNano()) {
			deadline = time.Unix(0, at)
		}
		s.Conn.SetWriteDeadline(deadline)
		if s.closing.Load() == at {
			return
		}
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

// CloseWrite sends FIN, after which the peer reads EOF.
func (s *socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// linger closes the connection without a reset: a kernel that closes a socket with unread bytes in it
// sends RST, at which the peer's kernel may drop what the peer has not read yet (an alert, our last bytes). So it ends its
// own side and reads on until the peer has ended too, at most 64 KiB and for at most timeout. The
// read loop must have ended.
func (s *socket) linger(timeout time.Duration) {
	if s.CloseWrite() == nil {
		deadline := time.Now().Add(timeout)
		for left := int64(64 << 10); left > 0 && time.Now().Before(deadline); {
			s.SetReadDeadline(deadline)
			n, err := io.CopyN(io.Discard, s.Conn, left)
			if left -= n; !errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} // else perhaps by an interrupt that was on its way to the read loop
		}
	}
	s.Close()
}
