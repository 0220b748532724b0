package meta

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// inheritKeepAlive sets the probes of the connections that the listener will accept: they inherit them from its socket, which is four system calls
// less for each (TestKeepAlive holds the kernel to that). It is nil where that cannot be relied on.
var inheritKeepAlive = func(listener *net.TCPListener, period time.Duration) error {
	if period <= 0 {
		return nil // as the socket is
	}
	raw, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	seconds := int((period + time.Second - 1) / time.Second)
	var optErr error
	err = raw.Control(func(fd uintptr) {
		for _, option := range []struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9}, // as package net
		} {
			optErr = errors.Join(optErr, unix.SetsockoptInt(int(fd), option.level, option.name, option.value))
		}
	})
	return errors.Join(err, optErr)
}
