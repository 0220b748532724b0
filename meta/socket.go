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

	"github.com/ergotls/ergotls/internal/dn"
)

// errWouldBlock is what a non-blocking read of a socket answers where nothing has arrived. It
// is temporary in the sense of net.Error, which crypto/tls does not make sticky: it keeps
// a half-read record and goes on with the next Read (TestTLSKeepsHalfReadRecord holds it to that).
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "would block" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// peekTimeout is how long peek waits where a read can't be made without blocking.
const peekTimeout = 5 * time.Millisecond

// aLongTimeAgo as a deadline makes a blocked call return at once.
var aLongTimeAgo = time.Unix(1, 0)

// socket is the connection under the TLS layer, or the connection itself where there is none.
//
// One goroutine at a time reads. Reads block, except within wait, where they answer errWouldBlock
// if nothing has arrived. Writes never block, except during a handshake: see socket_write.go.
type socket struct {
	net.Conn
	raw syscall.RawConn // nil: Conn can only be read and written with blocking calls

	// The reader's.
	polling   bool    // within wait
	fd        uintptr // valid within wait
	eof       bool    // the peer's FIN was read
	pending   []byte  // bytes read ahead of the TLS layer, served first
	guard     *proxyGuard
	handshake *tlsHandshake // not nil during a handshake, which alone writes then

	remote atomic.Pointer[net.Addr] // in place of the connection's own; nil: its own

	mu sync.Mutex // guards output; never held while a call blocks, except during a handshake
	output
}

// newSocket wraps a connection. Only those of exactly the standard types are read and written by
// their descriptors: a type that embeds one of them may transform the bytes.
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

// ConnectionID is what the log calls the connection. Who makes its handshake may ask for it then.
func (s *socket) ConnectionID() string {
	if s.handshake == nil {
		return ""
	}
	return s.handshake.id.String()
}

// RemoteAddr implements net.Conn. It is the client's address from the PROXY header where there was
// one.
func (s *socket) RemoteAddr() net.Addr {
	if remote := s.remote.Load(); remote != nil {
		return known(*remote)
	}
	return known(s.Conn.RemoteAddr())
}

// LocalAddr implements net.Conn.
func (s *socket) LocalAddr() net.Addr { return known(s.Conn.LocalAddr()) }

// known returns an address that is not nil: the connections of a given Listener may have none. The
// path of a unix socket is of the peer's choice and can have line ends, which are escaped: addresses
// are logged.
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
	if s.guard != nil && s.guard.spoofed(b[:n]) {
		return 0, errSpoofedProxy
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
	// A handshake has a place while it computes, not while it waits for its peer.
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

// wait calls poll until it returns true: at once and then each time that there is something to
// read. Reads of the socket within poll do not block. poll returns false only after a read has
// answered errWouldBlock: what arrives later is announced, what has arrived already is not. Between
// the calls nothing is held but this goroutine. wait returns early with the error of a passed read
// deadline or a closed connection.
func (s *socket) wait(poll func() (done bool)) error {
	return s.raw.Read(func(fd uintptr) bool {
		s.fd, s.polling = fd, true
		done := poll()
		s.polling = false
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

// linger closes the connection without a reset: a kernel that closes a socket with unread bytes in
// it sends RST, at which the peer's kernel may drop what the peer has not read yet (an alert, our
// last bytes). So it ends its own side and reads on until the peer has ended too, at most 64 KiB
// and for at most timeout. The read loop must have ended.
func (s *socket) linger(timeout time.Duration) {
	_ = s.CloseWrite() // where Conn can't, the peer may have ended already, or does when it has read our close_notify
	deadline := time.Now().Add(timeout)
	for left := int64(64 << 10); left > 0 && time.Now().Before(deadline); {
		s.SetReadDeadline(deadline)
		n, err := io.CopyN(io.Discard, s.Conn, left)
		if left -= n; !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} // else perhaps by an interrupt that was on its way to the read loop
	}
	s.Close()
}
