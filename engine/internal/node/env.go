package node

import (
	"maps"
	"sync"

	"ergo.services/ergo/gen"
)

// env is the environment of a node or process, and their methods for it.
type env struct {
	mu   sync.RWMutex
	vars map[gen.Env]any // replaced, never changed: children share it
}

// inherit takes over the parent's variables and adds to them.
func (e *env) inherit(parent *env, add map[gen.Env]any) {
	e.vars = parent.all()
	for name, value := range add {
		e.SetEnv(name, value)
	}
}

func (e *env) all() map[gen.Env]any {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.vars
}

func (e *env) EnvList() map[gen.Env]any {
	list := make(map[gen.Env]any)
	maps.Copy(list, e.all())
	return list
}

func (e *env) SetEnv(name gen.Env, value any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	vars := map[gen.Env]any{name: value}
	maps.Copy(vars, e.vars)
	if vars[name] = value; value == nil {
		delete(vars, name)
	}
	e.vars = vars
}

func (e *env) Env(name gen.Env) (any, bool) {
	value, ok := e.all()[name]
	return value, ok
}

func (e *env) EnvDefault(name gen.Env, def any) any {
	if value, ok := e.Env(name); ok {
		return value
	}
	return def
}
