// Package watch reports that files may have changed. Start with [Set]. It does not read the files.
package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/ergotls/ergotls/internal/clock"
)

// Set is a set of files to watch.
type Set struct {
	Files []string // each with the symbolic links on the way to it

	// Dir is a folder of files. Match reports by base name whether a file in it is relevant.
	Dir   string
	Match func(base string) bool
}

const (
	// renewEvery is how often the folders are looked up again without an event: the path to a file may
	// change where no event reports it.
	renewEvery = 10 * time.Second

	// pause limits how often events are handled: they come in bursts.
	pause = 20 * time.Millisecond
)

// Run calls changed when a file of the set may have changed, until ctx ends. It returns
// earlier, with an error, if the system does not report changes or has lost some.
//
// It watches folders rather than files: the system follows inodes, and a file replaced by rename
// has another one. Events of other files in these folders are ignored.
func (s Set) Run(ctx context.Context, changed func()) error {
	system, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	w := &watcher{set: s, system: system, events: make(chan struct{}, 1), lost: make(chan error, 1), drained: make(chan struct{})}
	defer func() {
		system.Close()
		<-w.drained
	}()
	go w.drain()
	if _, err := w.renew(); err != nil {
		return err
	}
	changed() // earlier changes were not noticed
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.lost:
			return err
		case <-w.events:
			changed()
		case <-tick.C:
		}
		added, err := w.renew()
		if err != nil {
			return err
		}
		if added {
			changed() // changes before it was watched were not noticed
		}
		clock.Sleep(ctx, pause)
	}
}

type watcher struct {
	set    Set
	system *fsnotify.Watcher
	names  atomic.Pointer[names]

	events  chan struct{} // a file of the set changed, or may have
	lost    chan error    // events were lost
	drained chan struct{} // drain has ended
}

// drain receives from fsnotify until that is closed, and never calls it: fsnotify sends errors
// while it holds the lock that all its methods take.
func (w *watcher) drain() {
	defer close(w.drained)
	for {
		select {
		case event, open := <-w.system.Events:
			if !open {
				return
			}
			if w.names.Load().concerns(event.Name) {
				w.signal()
			}
		case err, open := <-w.system.Errors:
			if !open {
				return
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.signal() // a folder is gone
				continue
			}
			select {
			case w.lost <- err:
			default: // Run returns the first error
			}
		}
	}
}

func (w *watcher) signal() {
	select {
	case w.events <- struct{}{}:
	default: // one signal is enough
	}
}

// renew watches the current folders: a folder that was removed and created again is a different
// one, and a symbolic link may lead elsewhere. The error names what cannot be watched.
func (w *watcher) renew() (added bool, err error) {
	names := w.set.find()
	w.names.Store(names)
	watched := make(map[string]bool)
	for _, old := range w.system.WatchList() {
		watched[old] = true
		if !names.folders[old] {
			w.system.Remove(old) // gone, or no longer needed
		}
	}
	for folder := range names.folders {
		// Even if it is watched already: it may be another folder of the same name.
		if e := w.system.Add(folder); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", folder, e)
		}
		added = added || !watched[folder]
	}
	return added, err
}
