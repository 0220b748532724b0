package crlfetch

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// path returns the file of the list in Dir. Its name is made from a hash of the URL, which is no
// file name.
func (l *list) path() string {
	sum := sha256.Sum256([]byte(l.url))
	return filepath.Join(l.s.Dir, hex.EncodeToString(sum[:16])+".crl")
}

// read reads the list from Dir.
func (l *list) read(issuers []*x509.Certificate) (*x509.RevocationList, error) {
	info, err := os.Stat(l.path())
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > l.s.MaxSize {
		return nil, fmt.Errorf("it is not a file of at most %d bytes (MaxSize)", l.s.MaxSize)
	}
	data, err := os.ReadFile(l.path())
	if err != nil {
		return nil, err
	}
	return parse(data, issuers)
}

// save writes the list to Dir, also after an earlier failure.
func (l *list) save() error {
	if !l.unsaved {
		return nil
	}
	crl, _ := l.get()
	if err := write(l.path(), crl.Raw); err != nil {
		return fmt.Errorf("it is in use but could not be written to Dir: %w", err)
	}
	l.unsaved = false
	return nil
}

// write replaces a file in one step.
func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
