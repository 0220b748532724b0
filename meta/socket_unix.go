//go:build unix

package meta

import (
	"io"
	"net"
	"os"
	"syscall"
)

// canWait says that a descriptor can be read without blocking while it waits in the runtime's poller.
const canWait = true

func (s *socket) readNow(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, err := syscall.Read(int(s.fd), b)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			return n, nil
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errWouldBlock
		default:
			return 0, &net.OpError{Op: "read", Net: s.LocalAddr().Network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(),
				Err: os.NewSyscallError("read", err)}
		}
	}
}
