//go:build unix && (!linux || race || msan || asan)

package meta

import "syscall"

func directRead(fd int, b []byte) (int, error)  { return syscall.Read(fd, b) }
func directWrite(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }
