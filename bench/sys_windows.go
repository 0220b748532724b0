package main

import (
	"errors"
	"math"
	"net"
	"syscall"
	"time"
)

func cpuTime() (time.Duration, error) {
	process, err := syscall.GetCurrentProcess()
	if err != nil {
		return 0, err
	}
	var created, exited, kernel, user syscall.Filetime
	if err := syscall.GetProcessTimes(process, &created, &exited, &kernel, &user); err != nil {
		return 0, err
	}
	ticks := func(f syscall.Filetime) time.Duration { // of 100 ns
		return time.Duration(int64(f.HighDateTime)<<32|int64(f.LowDateTime)) * 100
	}
	return ticks(kernel) + ticks(user), nil
}

func openFiles() uint64 { return math.MaxUint64 }

// drainConn needs a read that does not wait.
type drainConn struct {
	net.Conn
	polling bool
}

func newDrainConn(net.Conn) (*drainConn, error) {
	return nil, errors.New("the variant raw+drain is for Unix only")
}

func init() { delete(starters, rawDrain) }
