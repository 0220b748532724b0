// Package regular opens regular files. [Open] refuses all other files and does not block on them.
package regular

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrNot is the error for a path that is not a regular file.
var ErrNot = errors.New("no regular file")

// Open is os.OpenFile for regular files only. Opening a FIFO would block until its other end is
// open, and opening or reading a device can have any effect.
func Open(path string, flag int, perm fs.FileMode) (*os.File, error) {
	// Checked before opening, since a device must not be opened, and after, since the path may be
	// another file by then.
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
