package node

import (
	"maps"
	"sync"

	"ergo.services/ergo/gen"
)

// env is an environment.
type env struct {
	mu   sync.RWMutex
	vars map[gen.Env]any // replaced, never changed: a child shares it until one of the two sets a variable
}

// inherit takes over the parent's variables and adds to them.
func (e *env) inherit(parent *env, add map[gen.Env]any) {
	if parent != nil {
		e.vars = parent.all()
	}
	for name, value := range add {
		e.set(name, value)
	}
}

func (e *env) all() map[gen.Env]any {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.vars
}

func (e *env) list() map[gen.Env]any {
	list := make(map[gen.Env]any)
	maps.Copy(list, e.all())
	return list
}

func (e *env) set(name gen.Env, value any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	vars := make(map[gen.Env]any, len(e.vars)+1)
	maps.Copy(vars, e.vars)
	if value == nil {
		delete(vars, name)
	} else {
		vars[name] = value
	}
	e.vars = vars
}

func (e *env) get(name gen.Env) (any, bool) {
	value, ok := e.all()[name]
	return value, ok
}

func (e *env) getDefault(name gen.Env, def any) any {
	if value, ok := e.get(name); ok {
		return value
	}
	return def
}
