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
