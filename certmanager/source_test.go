package certmanager_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ergotls/ergotls/certmanager"
)

// edited is a source that a test edits. It is polled, but for what notice tells.
type edited struct {
	mu       sync.Mutex
	material certmanager.Material
	vary     bool // Load returns an error, another each time
	loads    int
	changed  func() // set by Watch
	notices  bool   // it calls changed itself
}

func (e *edited) Load(context.Context, *certmanager.Material) (*certmanager.Material, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.loads++
	if e.vary {
		return nil, fmt.Errorf("read tcp 127.0.0.1:%d: connection reset", 30000+e.loads)
	}
	m := e.material
	return &m, nil
}

func (e *edited) Watch(ctx context.Context, changed func(), _ func(certmanager.Event)) error {
	if !e.notices {
		return nil
	}
	e.mu.Lock()
	e.changed = changed
	e.mu.Unlock()
	<-ctx.Done()
	return nil
}

// count returns how often the source was loaded.
func (e *edited) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.loads
}

// set edits what the source has.
func (e *edited) set(edit func(*certmanager.Material)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.notices && e.changed == nil { // Watch is on its way
		e.mu.Unlock()
		time.Sleep(time.Millisecond)
		e.mu.Lock()
	}
	edit(&e.material)
	if e.changed != nil {
		e.changed()
	}
}
