package tlstest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces path atomically: a reader sees the old content or the new,
// never a part. The temporary file is made in the same folder.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp*")
	if err != nil {
		return err
	}
	_, err = temp.Write(data)
	// The mode is set before the name exists, so that a key is never readable by others.
	err = errors.Join(err, temp.Chmod(mode), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return nil
}
