//go:build unix

package meta

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// canWait says that a descriptor can be read without blocking while it waits in the runtime's poller.
const canWait = true

// unblock puts the descriptor back in the mode in which deadlines work: File().Fd(), which a given listener may call to set an option, makes it a
// blocking one, for all who share it.
func (s *socket) unblock() {
	if s.raw != nil {
		s.raw.Control(func(fd uintptr) { syscall.SetNonblock(int(fd), true) })
	}
}

func (s *socket) readNow(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, err := directRead(int(s.fd), b)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			s.single = n < len(b) && n > recordHeader && [3]byte(b) == recordData && n == recordHeader+int(b[3])<<8+int(b[4])
			return n, nil
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errWouldBlock
		default:
			return 0, s.opError("read", err)
		}
	}
}

// writeNow writes as much as the kernel takes at once. The caller holds writing.
func (s *socket) writeNow(b []byte) (int, error) {
	if s.deadline {
		s.deadline = false
		s.setWriteDeadline(time.Time{}) // one that has passed would fail this write too
	}
	s.toWrite, s.wrote, s.writeErr = b, 0, nil
	if err := s.raw.Write(s.writeRaw); err != nil {
		return 0, err
	}
	s.toWrite = nil
	return s.wrote, s.writeErr
}

// writeOnce is what the runtime calls with the descriptor.
func (s *socket) writeOnce(fd uintptr) (done bool) {
	for s.wrote < len(s.toWrite) {
		n, err := directWrite(int(fd), s.toWrite[s.wrote:])
		switch {
		case err == nil:
			s.wrote += n
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true
		default:
			s.writeErr = s.opError("write", err)
			return true
		}
	}
	return true
}

func (s *socket) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: s.LocalAddr().Network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
