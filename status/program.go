package status

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

const module = "github.com/ergotls/ergotls"

// program is which process it is that the page is about.
type program struct {
	Host    string
	Name    string // of the executable
	PID     int
	Version string `json:",omitempty"` // of the program's module
	Module  string `json:",omitempty"` // the version of this module
	Go      string
	Started time.Time
}

var started = time.Now()

var thisProgram = sync.OnceValue(func() program {
	p := program{Name: filepath.Base(os.Args[0]), PID: os.Getpid(), Go: runtime.Version(), Started: started}
	p.Host, _ = os.Hostname() // empty if it is not known
	if build, ok := debug.ReadBuildInfo(); ok {
		p.Version = build.Main.Version
		if build.Main.Path == module {
			p.Module = build.Main.Version
		}
		for _, dep := range build.Deps {
			if dep.Path == module {
				p.Module = dep.Version
			}
		}
	}
	return p
})
