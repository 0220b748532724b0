package certmanager

import (
	"errors"
	"io/fs"
	"log/slog"
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
	paths      []string
	logger     *slog.Logger
	system     *fsnotify.Watcher // nil where the system gives none
	complained bool
}

func newWatcher(paths []string, logger *slog.Logger) *watcher {
	if len(paths) == 0 {
		return nil
	}
	w := &watcher{paths: paths, logger: logger}
	var err error
	if w.system, err = fsnotify.NewWatcher(); err != nil {
		w.complain(err)
		return w
	}
	w.renew()
	return w
}

// complain logs the first failure of the system's events; polling goes on.
func (w *watcher) complain(err error) {
	if !w.complained {
		w.complained = true
		w.logger.Warn("certificate manager: file events are not reliable here; changes are found by polling", "error", err.Error())
	}
}

// renew watches the folders as they are now: one that was removed and made anew is
// another one, and what a symbolic link leads to may have moved.
func (w *watcher) renew() {
	if w == nil || w.system == nil {
		return
	}
	want := w.folders()
	for _, old := range w.system.WatchList() {
		if !slices.Contains(want, old) {
			w.system.Remove(old) // gone, or no longer of interest; either way is fine
		}
	}
	for _, folder := range want {
		if err := w.system.Add(folder); err != nil && !isMissing(err) {
			w.complain(err)
		}
	}
}

// folders returns where the paths are and where their links lead.
func (w *watcher) folders() []string {
	var folders []string
	for _, path := range w.paths {
		folders = append(folders, filepath.Dir(path))
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

func (w *watcher) events() <-chan fsnotify.Event {
	if w == nil || w.system == nil {
		return nil
	}
	return w.system.Events
}

func (w *watcher) errors() <-chan error {
	if w == nil || w.system == nil {
		return nil
	}
	return w.system.Errors
}

func (w *watcher) close() {
	if w != nil && w.system != nil {
		w.system.Close()
	}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
