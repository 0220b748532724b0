package tlstest

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Replacement is a way in which operators and their tools replace files.
type Replacement struct {
	Name string // for subtests

	// Replace gives the folder dir the files, name to content; those that it creates have mode
	// 0600. It also works if dir is empty, or was written by another replacement. Pass every file
	// of the folder: some replacements drop the others.
	//
	// Between, which may be nil, is called on the same goroutine after each step except the last,
	// for example when the key is new and the certificate old, or when a file is half written. A
	// test may check there that no incomplete set is served.
	Replace func(dir string, files map[string][]byte, between func()) error

	// Silent replacements cause no file system event in dir on Linux, as on a network file system:
	// only a program that polls notices them.
	Silent bool
}

// Replacements are all replacements of this package.
var Replacements = []Replacement{
	{Name: "rename over", Replace: RenameOver},
	{Name: "delete then create", Replace: DeleteThenCreate},
	{Name: "truncate and write", Replace: TruncateAndWrite},
	{Name: "key before certificate", Replace: KeyBeforeCertificate},
	{Name: "certificate before key", Replace: CertificateBeforeKey},
	{Name: "unreadable until chmod", Replace: UnreadableUntilChmod},
	{Name: "kubernetes swap", Replace: KubernetesSwap},
	{Name: "folder deleted", Replace: FolderDeleted},
	{Name: "folder swapped", Replace: FolderSwapped},
	{Name: "without event", Replace: WithoutEvent, Silent: true},
}

// RenameOver writes each file to a temporary file next to it and renames that into place, in the
// order of their names, as mv does.
func RenameOver(dir string, files map[string][]byte, between func()) error {
	return renameOver(dir, files, sorted(files), between)
}

// KeyBeforeCertificate is [RenameOver] with all private keys first.
func KeyBeforeCertificate(dir string, files map[string][]byte, between func()) error {
	keys, others := splitKeys(files)
	return renameOver(dir, files, slices.Concat(keys, others), between)
}

// CertificateBeforeKey is [RenameOver] with all private keys last.
func CertificateBeforeKey(dir string, files map[string][]byte, between func()) error {
	keys, others := splitKeys(files)
	return renameOver(dir, files, slices.Concat(others, keys), between)
}

func renameOver(dir string, files map[string][]byte, order []string, between func()) error {
	for i, name := range order {
		if i > 0 {
			call(between)
		}
		if err := WriteFile(filepath.Join(dir, name), files[name], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// sorted gives a replacement the same steps in every run.
func sorted(files map[string][]byte) []string { return slices.Sorted(maps.Keys(files)) }

func splitKeys(files map[string][]byte) (keys, others []string) {
	for _, name := range sorted(files) {
		if bytes.Contains(files[name], []byte("PRIVATE KEY-----")) {
			keys = append(keys, name)
		} else {
			others = append(others, name)
		}
	}
	return keys, others
}

// DeleteThenCreate removes all files, then creates them again.
func DeleteThenCreate(dir string, files map[string][]byte, between func()) error {
	for _, name := range sorted(files) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	call(between)
	return create(dir, files)
}

func create(dir string, files map[string][]byte) error {
	for _, name := range sorted(files) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// TruncateAndWrite empties each file and fills it in four writes, as cp does
// with a large one.
func TruncateAndWrite(dir string, files map[string][]byte, between func()) error {
	for i, name := range sorted(files) {
		if i > 0 {
			call(between)
		}
		if err := truncateAndWrite(filepath.Join(dir, name), files[name], between); err != nil {
			return err
		}
	}
	return nil
}

func truncateAndWrite(path string, data []byte, between func()) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(data, len(data)/4+1) {
		call(between)
		if _, err := file.Write(part); err != nil {
			return errors.Join(err, file.Close())
		}
	}
	return file.Close()
}

// UnreadableUntilChmod renames files without any permission into place, then grants it. The files
// become readable by a change of the mode alone. A superuser can read them all the time.
func UnreadableUntilChmod(dir string, files map[string][]byte, between func()) error {
	for _, name := range sorted(files) {
		if err := WriteFile(filepath.Join(dir, name), files[name], 0); err != nil {
			return err
		}
	}
	for _, name := range sorted(files) {
		call(between)
		if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// KubernetesSwap keeps dir as the kubelet keeps a mounted secret: a file is a
// link to ..data/file, ..data is a link to a folder named by the time, and an
// update replaces that one link. On Windows it needs the right to make links.
func KubernetesSwap(dir string, files map[string][]byte, between func()) error {
	data := filepath.Join(dir, "..data")
	old, err := os.Readlink(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := create(fresh, files); err != nil {
		return err
	}
	call(between)
	if err := linkOver(filepath.Base(fresh), data); err != nil {
		return err
	}
	for _, name := range sorted(files) {
		target, path := filepath.Join("..data", name), filepath.Join(dir, name)
		if now, err := os.Readlink(path); err == nil && now == target {
			continue
		}
		if err := linkOver(target, path); err != nil {
			return err
		}
	}
	call(between)
	return dropStale(dir, old, files)
}

// dropStale removes the folder of the last update, and the links to files that
// are no longer there.
func dropStale(dir, old string, files map[string][]byte) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		target, _ := os.Readlink(filepath.Join(dir, name))
		_, kept := files[name]
		if name == old || (target == filepath.Join("..data", name) && !kept) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func linkOver(target, path string) error {
	temp := path + "_tmp"
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// FolderDeleted removes dir and its contents, then creates it again.
func FolderDeleted(dir string, files map[string][]byte, between func()) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	call(between)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	call(between)
	return create(dir, files)
}

// FolderSwapped renames dir away and a new folder into its place. A program that watches the old
// folder by its inode does not see the change.
func FolderSwapped(dir string, files map[string][]byte, between func()) error {
	dir = filepath.Clean(dir)
	temp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".swap*")
	if err != nil {
		return err
	}
	fresh, gone := filepath.Join(temp, "new"), filepath.Join(temp, "old")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	if err := create(fresh, files); err != nil {
		return err
	}
	if err := os.Rename(dir, gone); err != nil {
		return err
	}
	call(between)
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	return os.RemoveAll(temp)
}

// WithoutEvent writes each file through a hard link in another folder: inotify reports that only to
// watchers of the other folder. Files that do not exist yet are created, with events.
func WithoutEvent(dir string, files map[string][]byte, between func()) error {
	dir = filepath.Clean(dir)
	temp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".link*")
	if err != nil {
		return err
	}
	for i, name := range sorted(files) {
		if i > 0 {
			call(between)
		}
		path := filepath.Join(dir, name)
		// A hard link to a symbolic link would lead back into the watched folder.
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = filepath.Join(temp, name)
			if err := os.Link(real, path); err != nil {
				return err
			}
		}
		if err := os.WriteFile(path, files[name], 0o600); err != nil {
			return err
		}
	}
	return os.RemoveAll(temp)
}

func call(between func()) {
	if between != nil {
		between()
	}
}
