package certmanager

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
)

// watcher reports that something may have changed in the folders of some files. It
// watches folders and not files, since the system follows inodes: a file that is
// renamed over is another one. What it misses, a poll finds. A nil watcher reports
// nothing.
type watcher struct {
	paths  []string
	system *fsnotify.Watcher // nil as long as the system gives none

	events  chan struct{} // something changed since the last look
	errors  chan error
	drained chan struct{} // drain has ended
}

func newWatcher(paths []string) *watcher {
	if len(paths) == 0 {
		return nil
	}
	return &watcher{paths: paths, events: make(chan struct{}, 1), errors: make(chan error, 1), drained: make(chan struct{})}
}

// drain takes what fsnotify has to say until it is closed, and never calls it: it sends errors
// while it holds the lock that all its methods take.
func (w *watcher) drain() {
	defer close(w.drained)
	for {
		select {
		case _, open := <-w.system.Events:
			if !open {
				return
			}
			select {
			case w.events <- struct{}{}:
			default: // one look is enough for many events
			}
		case err, open := <-w.system.Errors:
			if !open {
				return
			}
			select {
			case w.errors <- err:
			default:
			}
		}
	}
}

// renew watches the folders as they are now: one that was removed and made anew is
// another one, and what a symbolic link leads to may have moved. The error says what cannot be watched.
func (w *watcher) renew() (err error) {
	if w == nil {
		return nil
	}
	if w.system == nil {
		if w.system, err = fsnotify.NewWatcher(); err != nil {
			return err
		}
		go w.drain()
	}
	want := w.folders()
	for _, old := range w.system.WatchList() {
		if !slices.Contains(want, old) {
			w.system.Remove(old) // gone, or no longer of interest; either way is fine
		}
	}
	for _, folder := range want {
		if e := w.system.Add(folder); e != nil && !isMissing(e) {
			err = fmt.Errorf("%s: %w", folder, e)
		}
	}
	return err
}

// folders returns where the paths are and where their links lead.
func (w *watcher) folders() []string {
	var folders []string
	for _, path := range w.paths {
		folders = append(folders, filepath.Dir(path))
		folders = append(folders, above(path)...)
		if real, err := filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(real))
		}
		if isFolder(path) {
			folders = append(folders, path)
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

// above returns the folders of the links on the way to a path, which may come to lead elsewhere, and of what is
// missing there, up to the first that exists: what was removed comes back into it.
func above(path string) []string {
	var folders []string
	for {
		parent := filepath.Dir(path)
		if parent == path {
			return folders
		}
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink != 0 {
			folders = append(folders, parent)
		}
		path = parent
	}
}

// changes and failures are nil, and so never ready, where there is no watcher.
func (w *watcher) changes() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.events
}

func (w *watcher) failures() <-chan error {
	if w == nil {
		return nil
	}
	return w.errors
}

func (w *watcher) close() {
	if w != nil && w.system != nil {
		w.system.Close()
		<-w.drained
	}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
