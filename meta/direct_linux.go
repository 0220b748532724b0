//go:build !race && !msan && !asan

package meta

import (
	"syscall"
	"unsafe"
)

// directSize is the most in bytes that is read or written directly: a TLS record with what belongs to it (RFC 8446 section 5.2).
const directSize = recordHeader + recordSize + 256

// directRead and directWrite are syscall.Read and syscall.Write for descriptors that do not block. Those two tell Go's scheduler of the call, so that it
// can go on without the thread if the kernel keeps it. That wakes the monitor thread each time when nothing ran before: with one
// connection it costs more than all else that is done for a message. A call that cannot block and copies no more than a
// record need not be told of, as long as hangUps bounds the monitor's sleep (TestComputingHandlerIsInterrupted holds the runtime to that).
//
// The race detector and its like learn of reads and writes from package syscall, so with them all calls go there.
func directRead(fd int, b []byte) (int, error) {
	if len(b) == 0 || len(b) > directSize || !hangUps.armed.Load() {
		return syscall.Read(fd, b)
	}
	return direct(syscall.SYS_READ, fd, b)
}

func directWrite(fd int, b []byte) (int, error) {
	if len(b) == 0 || len(b) > directSize || !hangUps.armed.Load() {
		return syscall.Write(fd, b)
	}
	return direct(syscall.SYS_WRITE, fd, b)
}

func direct(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
