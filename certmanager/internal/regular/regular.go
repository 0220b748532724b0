// Package regular opens regular files: [Open] refuses all other files and does not block on them.
package regular

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrNot is the error for a path that is not a regular file.
var ErrNot = errors.New("not a regular file")

// Open is os.OpenFile for regular files only. It does not wait for the other end of a FIFO.
func Open(path string, flag int, perm fs.FileMode) (*os.File, error) {
	file, err := os.OpenFile(path, flag|syscall.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.Mode().IsRegular():
		return file, nil
	case info.IsDir():
		err = fmt.Errorf("%s: %w: it is a folder, name the file in it", path, ErrNot)
	default:
		err = fmt.Errorf("%s: %w: it is a pipe or a device; name a file", path, ErrNot)
	}
	file.Close()
	return nil, err
}
