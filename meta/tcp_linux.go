package meta

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var closeOnExec = syscall.CloseOnExec

var fchmod = syscall.Fchmod

// setUserTimeout sets TCP_USER_TIMEOUT, which is in milliseconds (tcp(7)).
var setUserTimeout = func(fd int, timeout time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(1, timeout.Milliseconds())))
}

// unacked returns the number of bytes in our kernel that the peer's has not acknowledged, -1 if it
// is unknown.
func (s *socket) unacked() int {
	n := -1
	if s.raw != nil {
		s.raw.Control(func(fd uintptr) {
			if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
				n = queued
			}
		})
	}
	return n
}
