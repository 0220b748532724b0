//go:build !race && !msan && !asan

package meta

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directSize is the most in bytes that is read or written without telling the scheduler: a TLS record with what belongs to it (RFC 8446 section 5.2).
const directSize = recordHeader + recordSize + 256

// directRead and directWrite are syscall.Read and syscall.Write but for two things.
//
// They do not block, whatever becomes of the mode of the descriptor after unblock: a thread that blocks untold would hold up all others.
//
// Go's scheduler is told of a system call so that it can go on without the thread if the kernel keeps it. That wakes the monitor thread each time when
// nothing ran before: with one connection it costs more than all else that is done for a message. A call that does not block and copies no
// more than a record need not be told of, as long as hangUps bounds the monitor's sleep (TestComputingHandlerIsInterrupted holds the runtime to that).
//
// The race detector and its like learn of reads and writes from package syscall, so with them all calls go there.
func directRead(fd int, b []byte) (int, error) {
	n, errno := direct(unix.SYS_RECVFROM, fd, b, unix.MSG_DONTWAIT)
	if errno == unix.ENOTSOCK || errno == unix.ENOSYS {
		return syscall.Read(fd, b)
	}
	return n, errno
}

func directWrite(fd int, b []byte) (int, error) {
	n, errno := direct(unix.SYS_SENDTO, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if errno == unix.ENOTSOCK || errno == unix.ENOSYS {
		return syscall.Write(fd, b)
	}
	return n, errno
}

func direct(call uintptr, fd int, b []byte, flags uintptr) (int, error) {
	var n uintptr
	var errno syscall.Errno
	if hangUps.armed.Load() && len(b) <= directSize {
		n, _, errno = syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	}
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
