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
