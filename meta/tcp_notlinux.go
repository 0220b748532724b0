//go:build !linux

package meta

import "time"

var closeOnExec func(int) // nil: there is no systemd

func fchmod(int, uint32) error { return nil }

var setUserTimeout func(fd int, timeout time.Duration) // nil: there is no TCP_USER_TIMEOUT

// unacked can't be told here: what counts is what our kernel takes.
func (s *socket) unacked() int { return -1 }
