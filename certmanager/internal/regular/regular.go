// Package regular opens regular files. [Open] refuses all others, and never waits for them.
package regular

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrNot is the error of what is no regular file.
var ErrNot = errors.New("no regular file")

// Open is os.OpenFile for a regular file. A FIFO would keep it waiting for the other end, and what
// a device does when it is opened or read is its own.
func Open(path string, flag int, perm fs.FileMode) (*os.File, error) {
	// Before, since a device is not to be opened, and after, since it may be another file by then.
	info, err := os.Stat(path)
	if err == nil {
		err = check(path, info)
	}
	if err != nil && (!os.IsNotExist(err) || flag&os.O_CREATE == 0) {
		return nil, err
	}
	file, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	if info, err = file.Stat(); err == nil {
		err = check(path, info)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func check(path string, info fs.FileInfo) error {
	mode := info.Mode()
	what := "a device; name a file"
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		what = "a folder, name the file in it"
	case mode&fs.ModeNamedPipe != 0:
		what = "a named pipe; name a file"
	case mode&fs.ModeSocket != 0:
		what = "a socket; name a file"
	}
	return fmt.Errorf("%s: %w: it is %s", path, ErrNot, what)
}
