package meta

import "golang.org/x/sys/unix"

// unacked gives the number of bytes that our kernel has and the peer's has not acknowledged, -1 if
// it can't be told.
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
