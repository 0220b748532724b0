package watch

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// names are the paths of a set at one time.
type names struct {
	folders map[string]bool // to be watched
	exact   map[string]bool // relevant paths: files, links on the way to them, and the folders
	dir     string          // without links; empty if there is none
	match   func(base string) bool
}

// concerns reports whether an event for a path is relevant.
func (n *names) concerns(path string) bool {
	return n.exact[path] || filepath.Dir(path) == n.dir && n.match(filepath.Base(path))
}

// find looks up the current paths of a set.
func (s Set) find() *names {
	n := &names{folders: make(map[string]bool), exact: make(map[string]bool), match: s.Match}
	for _, file := range s.Files {
		n.follow(file)
	}
	if s.Dir != "" {
		n.dir = n.follow(s.Dir)
	}
	if n.dir != "" {
		n.folders[n.dir] = true
		entries, _ := os.ReadDir(n.dir) // an error leaves the entries read so far
		for _, e := range entries {
			if e.Type()&fs.ModeSymlink != 0 && s.Match(e.Name()) {
				n.follow(filepath.Join(n.dir, e.Name()))
			}
		}
	}
	for folder := range n.folders {
		n.exact[folder] = true // it may be removed, or renamed
	}
	return n
}

// maxLinks limits the links of one path, as the system does.
const maxLinks = 40

// follow records a file, every link on the way to it, and the first of its folders that does not
// exist, where it may reappear. It returns the path without links, empty if there is none.
func (n *names) follow(path string) string {
	if !filepath.IsAbs(path) {
		abs, err := filepath.Abs(path)
		if err != nil {
			return ""
		}
		path = abs
	}
	at := filepath.VolumeName(path) + string(filepath.Separator)
	rest := split(path[len(at):])
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			n.note(at, next)
			return ""
		case info.Mode()&fs.ModeSymlink != 0:
			n.note(at, next)
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
			n.note(at, next)
		}
		at, rest = next, rest[1:]
	}
	return at
}

func (n *names) note(folder, path string) {
	n.folders[folder] = true
	n.exact[path] = true
}

// split returns the elements of a path. It keeps "..", because filepath.Join later resolves it
// against a path without links.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator || r == '/' })
}
