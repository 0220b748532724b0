package meta

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ergotls/ergotls/internal/dn"
)

// errWouldBlock is the error of a non-blocking read when nothing has arrived. It is temporary in
// the sense of net.Error: crypto/tls does not keep such an error, but keeps a half-read record and
// continues with the next Read (tested by TestTLSKeepsHalfReadRecord).
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// peekTimeout is how long peek waits if the connection can't be read without blocking.
const peekTimeout = 5 * time.Millisecond

// aLongTimeAgo, set as a deadline, makes a blocked call return at once.
var aLongTimeAgo = time.Unix(1, 0)

// socket is the connection below the TLS layer, or the connection itself without TLS.
//
// One goroutine at a time reads. Reads block, except within wait, where they return errWouldBlock
// if nothing has arrived. Writes never block, except during a handshake: see socket_write.go.
type socket struct {
	net.Conn
	raw syscall.RawConn // nil: Conn has only blocking reads and writes

	// Used by the reading goroutine.
	polling   bool          // within wait
	skipping  bool          // set by the read loop: see readNow
	emptied   bool          // within wait, if skipping: no more data is in the kernel's buffer
	fd        uintptr       // valid within wait
	eof       bool          // the peer's FIN was read
	pending   []byte        // bytes read ahead of the TLS layer, served first
	handshake *tlsHandshake // nil except during a handshake; then only the handshake writes

	remote atomic.Pointer[net.Addr] // replaces the address of Conn; nil: it is not replaced

	mu sync.Mutex // guards output; never held while a call blocks, except during a handshake
	output
}

// newSocket wraps a connection. Only connections of exactly the standard types are read and written
// through their descriptors: a type that embeds one of them may transform the bytes.
func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn}
	var raw syscall.RawConn
	var err error
	switch conn := conn.(type) {
	case *net.TCPConn:
		raw, err = conn.SyscallConn()
	case *net.UnixConn:
		raw, err = conn.SyscallConn()
	}
	if canPoll && raw != nil && err == nil {
		s.raw, s.attempt.once = raw, s.writeOnce
	}
	return s
}

// ConnectionID returns the name of the connection in the log, during a handshake. The text is made
// only if it is needed.
func (s *socket) ConnectionID() fmt.Stringer {
	if s.handshake == nil {
		return nil
	}
	return s.handshake.id
}

// RemoteAddr implements net.Conn. It returns the client's address from the PROXY header if there
// was one.
func (s *socket) RemoteAddr() net.Addr {
	if remote := s.remote.Load(); remote != nil {
		return known(*remote)
	}
	return known(s.Conn.RemoteAddr())
}

// LocalAddr implements net.Conn.
func (s *socket) LocalAddr() net.Addr { return known(s.Conn.LocalAddr()) }

// known returns addr or, if a connection of a given Listener has none, an address that is not nil.
// The peer chooses the path of its unix socket, so line breaks in it are escaped for the log.
func known(addr net.Addr) net.Addr {
	if addr == nil {
		return noAddr{}
	}
	if unix, ok := addr.(*net.UnixAddr); ok && unix != nil {
		if name := dn.Printable(unix.Name); name != unix.Name {
			return &net.UnixAddr{Name: name, Net: unix.Net}
		}
	}
	return addr
}

type noAddr struct{}

func (noAddr) Network() string { return "unknown" }
func (noAddr) String() string  { return "unknown" }

// Read implements net.Conn. Only crypto/tls and the connection's read loop call it.
func (s *socket) Read(b []byte) (int, error) {
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
	return n, err
}

func (s *socket) read(b []byte) (int, error) {
	if s.polling {
		return s.readNow(b)
	}
	if s.handshake == nil {
		return s.Conn.Read(b)
	}
	// A handshake holds a place while it computes, not while it waits for its peer.
	s.handshake.leave()
	n, err := s.Conn.Read(b)
	if n > 0 {
		s.handshake.began = true
	}
	if err == nil {
		err = s.handshake.enter()
	}
	return n, err
}

// wait calls poll until it returns true: at once, and then each time that data arrives. Reads of
// the socket within poll do not block. poll may return false only after a read has returned
// errWouldBlock, since only data that arrives later causes another call. wait returns early with an
// error if the read deadline passes or the connection is closed.
func (s *socket) wait(poll func() (done bool)) error {
	return s.raw.Read(func(fd uintptr) bool {
		s.fd, s.polling, s.emptied = fd, true, false
		done := poll()
		s.polling = false
		return done
	})
}

// peek reads what has arrived without waiting for more. It is no error if nothing has.
func (s *socket) peek(b []byte) (n int, err error) {
	if s.raw == nil {
		s.SetReadDeadline(time.Now().Add(peekTimeout))
		if n, err = s.Read(b); timeout(err) {
			err = nil
		}
		return n, err
	}
	for {
		s.SetReadDeadline(time.Time{})
		waitErr := s.wait(func() bool {
			if n, err = s.Read(b); err == error(errWouldBlock) {
				err = nil
			}
			return true
		})
		if !timeout(waitErr) { // else the read loop was interrupted in between, and nothing was read
			return n, errors.Join(waitErr, err)
		}
	}
}

// linger closes the connection without a reset. A kernel that closes a socket with unread data
// sends RST, and then the peer's kernel may drop data that the peer has not read yet (an alert, our
// last bytes). So linger ends our side and reads until the peer has ended too, at most 64 KiB and
// for at most timeout. The read loop must have ended.
func (s *socket) linger(timeout time.Duration) {
	_ = s.CloseWrite() // if Conn has no CloseWrite, the peer has ended already, or ends after our close_notify
	deadline := time.Now().Add(timeout)
	for left := int64(64 << 10); left > 0 && time.Now().Before(deadline); {
		s.SetReadDeadline(deadline)
		n, err := io.CopyN(io.Discard, s.Conn, left)
		if left -= n; !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} // else a late interrupt of the read loop may have set the deadline
	}
	s.Close()
}
