// Package node is the engine behind the interfaces of package gen.
package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
)

const (
	nodeID  = 1    // the node's virtual process
	maxID   = 1000 // of what is no process, meta process or alias
	maxName = 255  // bytes
)

// node implements gen.Node. The process in it is its virtual one: the sender of what the node
// sends, and the parent of what it spawns.
type node struct {
	process
	name     gen.Atom
	creation int64
	certs    gen.CertManager
	loggers  loggers
	workers  workers
	lastID   atomic.Uint64 // of processes, aliases and references

	mu       sync.RWMutex // guards what follows, and what processes say it does
	stopping bool
	units    map[uint64]*unit // by PID.ID and Alias.ID[0]
	names    map[gen.Atom]*process
	watchers map[watch]map[*process]struct{}
	ctrlc    chan struct{} // closed to turn it off; nil where it is off

	living sync.WaitGroup // processes and meta processes, until their last callback has returned
	starts sync.WaitGroup // goroutines in a meta process's Start
	over   atomic.Bool    // the node has ended
	done   chan struct{}  // closed then
	finish sync.Once
}

// Start starts a node.
func Start(name gen.Atom, options gen.NodeOptions) (gen.Node, error) {
	local, host, _ := strings.Cut(string(name), "@")
	if local == "" || host == "" || strings.Contains(host, "@") {
		return nil, fmt.Errorf("node name %s is not of the form name@host: %w", name, gen.ErrIncorrect)
	}
	if len(name) > maxName {
		return nil, fmt.Errorf("node name of %d bytes: %w", len(name), gen.ErrAtomTooLong)
	}
	level, err := inheritLevel(options.Log.Level, gen.LogLevelInfo)
	if err != nil {
		return nil, fmt.Errorf("NodeOptions.Log: %w", err)
	}
	now := time.Now()
	n := &node{
		name: name, creation: now.UnixNano(), certs: options.CertManager,
		units:    map[uint64]*unit{},
		names:    map[gen.Atom]*process{},
		watchers: map[watch]map[*process]struct{}{},
		done:     make(chan struct{}),
	}
	n.workers.idle.L = &n.workers.mu
	n.lastID.Store(maxID)
	n.node, n.started, n.pid = n, now, gen.PID{Node: name, ID: nodeID, Creation: n.creation}
	n.leader = n.pid
	n.inherit(&env{}, options.Env)
	n.log.init(n, level, n)
	if err := n.loggers.init(options.Log); err != nil {
		return nil, fmt.Errorf("NodeOptions.Log.Loggers: %w", err)
	}
	return n, nil
}

func (n *node) Name() gen.Atom               { return n.name }
func (n *node) Creation() int64              { return n.creation }
func (n *node) CertManager() gen.CertManager { return n.certs }
func (n *node) LoggerDelete(name string)     { n.loggers.remove(name, false) }

func (n *node) MakeRef() gen.Ref {
	return gen.Ref{Node: n.name, Creation: n.creation, ID: [3]uint64{n.lastID.Add(1)}}
}

func (n *node) LoggerAdd(name string, logger gen.LoggerBehavior, filter ...gen.LogLevel) error {
	if n.ended() {
		return gen.ErrNodeTerminated
	}
	return n.loggers.add(gen.Logger{Name: name, Logger: logger, Filter: filter})
}

func (n *node) SendExit(pid gen.PID, reason error) error { return n.exit(n.pid, pid, reason) }

func (n *node) Kill(pid gen.PID) error {
	p, err := n.find(pid)
	if err == nil {
		p.kill()
	}
	return err
}

func (n *node) ProcessInfo(pid gen.PID) (gen.ProcessInfo, error) {
	p, err := n.find(pid)
	if err != nil {
		return gen.ProcessInfo{}, err
	}
	return p.Info()
}

func (n *node) ProcessState(pid gen.PID) (gen.ProcessState, error) {
	p, err := n.find(pid)
	if err != nil {
		return 0, err
	}
	return p.State(), nil
}

func (n *node) ProcessList() ([]gen.PID, error) {
	if n.ended() {
		return nil, gen.ErrNodeTerminated
	}
	var list []gen.PID
	for _, p := range n.all() {
		list = append(list, p.pid)
	}
	slices.SortFunc(list, func(a, b gen.PID) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

func (n *node) all() (list []*process) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for id, u := range n.units {
		if p, ok := u.kind.(*process); ok && p.pid.ID == id {
			list = append(list, p)
		}
	}
	return list
}

func (n *node) logSource() any { return gen.MessageLogNode{Node: n.name, Creation: n.creation} }
