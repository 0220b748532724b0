//go:build !linux

package meta

import "time"

var closeOnExec func(int) // nil: there is no systemd

func fchmod(int, uint32) error { return nil }

var setUserTimeout func(fd int, timeout time.Duration) // nil: there is no TCP_USER_TIMEOUT

// unacked is unknown here, so only what our kernel takes counts.
func (s *socket) unacked() int { return -1 }
