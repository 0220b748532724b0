package watch

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// names are the paths whose events count.
type names struct {
	mu      sync.Mutex
	exact   map[string]bool // files, links on the way to them, and watched folders
	dir     string          // without links
	matches func(base string) bool
}

// concerns says whether an event of a path counts.
func (n *names) concerns(path string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.exact[path] || n.matches != nil && filepath.Dir(path) == n.dir && n.matches(filepath.Base(path))
}

// find looks up what a set consists of now and returns the folders to watch.
func (n *names) find(s Set) (folders map[string]bool) {
	f := finder{exact: make(map[string]bool), folders: make(map[string]bool)}
	for _, file := range s.Files {
		f.follow(file)
	}
	dir := ""
	if s.Dir != "" {
		if dir = f.follow(s.Dir); dir != "" {
			f.folders[dir] = true
			entries, _ := os.ReadDir(dir) // as far as it can be read
			for _, e := range entries {
				if e.Type()&fs.ModeSymlink != 0 && s.Match(e.Name()) {
					f.follow(filepath.Join(dir, e.Name()))
				}
			}
		}
	}
	for folder := range f.folders {
		f.exact[folder] = true // it may be removed, or renamed
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.exact, n.dir, n.matches = f.exact, dir, s.Match
	return f.folders
}

type finder struct {
	exact   map[string]bool
	folders map[string]bool
}

// maxLinks bounds the links of one path, as the system does.
const maxLinks = 40

// follow notes a file, every link on the way to it, and the first of its folders that does
// not exist: what was removed comes back there. It returns the path without links, empty
// if there is none.
func (f finder) follow(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	at := filepath.VolumeName(path) + string(filepath.Separator)
	rest := split(path[len(at):])
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			f.note(at, next)
			return ""
		case info.Mode()&fs.ModeSymlink != 0:
			f.note(at, next)
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return ""
			}
			if filepath.IsAbs(target) {
				at = filepath.VolumeName(target) + string(filepath.Separator)
				target = target[len(at):]
			}
			rest = append(split(target), rest[1:]...)
			continue
		case len(rest) == 1:
			f.note(at, next)
		}
		at, rest = next, rest[1:]
	}
	return at
}

func (f finder) note(folder, path string) {
	f.folders[folder] = true
	f.exact[path] = true
}

// split returns the elements of a path. ".." stays: filepath.Join resolves it against a path
// that has no links.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator || r == '/' })
}
