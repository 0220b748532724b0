//go:build unix

package main

import (
	"math"
	"net"
	"syscall"
	"time"
)

// cpuTime is what this process has used, user and system.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// openFiles is how many this process may have. The Go runtime has raised the soft limit to the hard
// one.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxUint64 // then the connections will tell
	}
	return uint64(limit.Cur)
}

// drainConn is a connection that can be read without waiting: while polling is set, Read fails with
// wouldBlock where nothing is there, which crypto/tls takes as temporary.
type drainConn struct {
	net.Conn
	raw     syscall.RawConn
	polling bool
}

func newDrainConn(c net.Conn) (*drainConn, error) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	return &drainConn{Conn: c, raw: raw}, err
}

func (c *drainConn) Read(p []byte) (n int, err error) {
	if !c.polling {
		return c.Conn.Read(p)
	}
	var failed error
	err = c.raw.Read(func(fd uintptr) bool {
		n, failed = syscall.Read(int(fd), p)
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil: // a real error shows again in the next read that waits
		return 0, wouldBlock{}
	case n == 0: // as does the end of the stream
		return 0, wouldBlock{}
	}
	return n, nil
}
