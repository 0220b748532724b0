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
	"ergo.services/ergo/internal/mailbox"
)

const (
	nodeID  = 1    // the node's virtual process
	maxID   = 1000 // of what is no process, meta process or alias
	maxName = 255  // bytes
)

// node implements gen.Node.
type node struct {
	env
	name     gen.Atom
	creation int64
	started  time.Time
	pid      gen.PID
	certs    gen.CertManager
	log      log
	loggers  loggers
	lastID   atomic.Uint64 // of processes, aliases and references

	mu       sync.RWMutex // guards what follows, and what processes say it does
	stopping bool
	units    map[uint64]*unit // by PID.ID and Alias.ID[0]
	names    map[gen.Atom]*process
	watchers map[watch]map[*process]struct{}
	ctrlc    chan struct{} // closed to turn it off; nil where it is off

	living sync.WaitGroup // processes and meta processes, until their last callback has returned
	starts sync.WaitGroup // goroutines in a meta process's Start
	done   chan struct{}  // closed when the node has ended
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
		name: name, creation: now.UnixNano(), started: now, certs: options.CertManager,
		pid:      gen.PID{Node: name, ID: nodeID, Creation: now.UnixNano()},
		units:    map[uint64]*unit{},
		names:    map[gen.Atom]*process{},
		watchers: map[watch]map[*process]struct{}{},
		done:     make(chan struct{}),
	}
	n.lastID.Store(maxID)
	n.inherit(&env{}, options.Env)
	n.log.init(n, level, n)
	if err := n.loggers.init(options.Log); err != nil {
		return nil, fmt.Errorf("NodeOptions.Log.Loggers: %w", err)
	}
	return n, nil
}

func (n *node) Name() gen.Atom               { return n.name }
func (n *node) Uptime() int64                { return int64(time.Since(n.started) / time.Second) }
func (n *node) PID() gen.PID                 { return n.pid }
func (n *node) Creation() int64              { return n.creation }
func (n *node) CertManager() gen.CertManager { return n.certs }
func (n *node) Log() gen.Log                 { return &n.log }
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

func (n *node) Spawn(factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	return n.spawn(nil, nil, factory, options, args)
}

func (n *node) SpawnRegister(register gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	return n.spawn(nil, &register, factory, options, args)
}

func (n *node) Send(to any, message any) error {
	return n.SendWithPriority(to, message, gen.MessagePriorityNormal)
}

func (n *node) SendWithPriority(to any, message any, priority gen.MessagePriority) error {
	if n.ended() {
		return gen.ErrNodeTerminated
	}
	return n.send(to, &mailbox.Message{From: n.pid, Payload: message}, priority)
}

func (n *node) SendExit(pid gen.PID, reason error) error { return n.exit(n.pid, pid, reason) }

func (n *node) Kill(pid gen.PID) error {
	p, err := n.process(pid)
	if err == nil {
		p.kill()
	}
	return err
}

func (n *node) ProcessInfo(pid gen.PID) (gen.ProcessInfo, error) {
	p, err := n.process(pid)
	if err != nil {
		return gen.ProcessInfo{}, err
	}
	return p.Info()
}

func (n *node) ProcessState(pid gen.PID) (gen.ProcessState, error) {
	p, err := n.process(pid)
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

func (n *node) MetaInfo(alias gen.Alias) (gen.MetaInfo, error) {
	m, err := n.meta(alias)
	if err != nil {
		return gen.MetaInfo{}, err
	}
	return m.info(), nil
}

func (n *node) logSource() any { return gen.MessageLogNode{Node: n.name, Creation: n.creation} }
