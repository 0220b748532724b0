//go:build unix

package meta

import (
	"io"
	"net"
	"os"
	"syscall"
)

// canPoll reports whether a descriptor can be read without blocking while it waits in the runtime's
// poller.
const canPoll = true

// unblock makes the descriptor non-blocking again, so that deadlines work. File().Fd(), which a
// given listener may call to set an option, makes it blocking for all of its duplicates.
func (s *socket) unblock() {
	if s.raw != nil {
		s.raw.Control(func(fd uintptr) { syscall.SetNonblock(int(fd), true) })
	}
}

// readNow reads what has arrived, within wait.
//
// A read that returns less than it asked for has emptied the kernel's buffer (epoll(7), kqueue(2)),
// so the next one would return EAGAIN. Without that system call for each message, rr 64 and bulk
// cost a tenth less. But the peer's FIN may have come with the data, and the poller does not report
// it again. So the call is skipped only in TLS, which has close_notify in the data, only while
// messages follow each other, and at most for endCheckTime: then the read loop looks for the FIN.
func (s *socket) readNow(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.emptied {
		return 0, errWouldBlock
	}
	for {
		n, err := syscall.Read(int(s.fd), b)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			s.emptied = s.skipping && n < len(b)
			return n, nil
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errWouldBlock
		default:
			return 0, s.opError("read", err)
		}
	}
}

// writeOnce writes until all is written or the kernel takes no more.
func (s *socket) writeOnce(fd uintptr) (done bool) {
	a := &s.attempt
	for len(a.rest) > 0 {
		n, err := syscall.Write(int(fd), a.rest)
		switch {
		case err == nil:
			a.rest = a.rest[n:]
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true
		default:
			a.err = s.opError("write", err)
			return true
		}
	}
	return true
}

func (s *socket) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: s.LocalAddr().Network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
