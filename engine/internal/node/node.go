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
	firstID = 1001 // of a process
	maxAtom = 255  // bytes
)

// node implements gen.Node.
type node struct {
	name     gen.Atom
	creation int64
	started  time.Time
	pid      gen.PID
	env      env
	certs    gen.CertManager
	log      log
	loggers  loggers
	refID    atomic.Uint64 // the last one that was given away, of references and aliases

	mu        sync.RWMutex // guards what follows, and the tables of the processes
	stopping  bool
	lastID    uint64 // of a process
	processes map[uint64]*process
	aliases   map[uint64]*unit // by Alias.ID[0]
	names     map[gen.Atom]*process
	watchers  map[watch]map[*process]struct{}
	ctrlc     chan struct{} // closed to turn it off; nil where it is off

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
	if len(name) > maxAtom {
		return nil, fmt.Errorf("node name of %d bytes: %w", len(name), gen.ErrAtomTooLong)
	}
	level, err := inheritLevel(options.Log.Level, gen.LogLevelInfo)
	if err != nil {
		return nil, fmt.Errorf("NodeOptions.Log.Level: %w", err)
	}
	now := time.Now()
	n := &node{
		name:      name,
		creation:  now.UnixNano(),
		started:   now,
		pid:       gen.PID{Node: name, ID: nodeID, Creation: now.UnixNano()},
		certs:     options.CertManager,
		lastID:    firstID - 1,
		processes: map[uint64]*process{},
		aliases:   map[uint64]*unit{},
		names:     map[gen.Atom]*process{},
		watchers:  map[watch]map[*process]struct{}{},
		done:      make(chan struct{}),
	}
	n.env.inherit(nil, options.Env)
	n.log.init(n, level, n)
	if err := n.loggers.init(options.Log); err != nil {
		return nil, fmt.Errorf("NodeOptions.Log.Loggers: %w", err)
	}
	return n, nil
}

func (n *node) Name() gen.Atom                       { return n.name }
func (n *node) Uptime() int64                        { return int64(time.Since(n.started) / time.Second) }
func (n *node) PID() gen.PID                         { return n.pid }
func (n *node) Creation() int64                      { return n.creation }
func (n *node) CertManager() gen.CertManager         { return n.certs }
func (n *node) Log() gen.Log                         { return &n.log }
func (n *node) EnvList() map[gen.Env]any             { return n.env.list() }
func (n *node) SetEnv(name gen.Env, value any)       { n.env.set(name, value) }
func (n *node) Env(name gen.Env) (any, bool)         { return n.env.get(name) }
func (n *node) EnvDefault(name gen.Env, def any) any { return n.env.getDefault(name, def) }
func (n *node) LoggerDelete(name string)             { n.loggers.remove(name) }

func (n *node) MakeRef() gen.Ref {
	return gen.Ref{Node: n.name, Creation: n.creation, ID: [3]uint64{n.refID.Add(1)}}
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

// live is process for the node's own methods.
func (n *node) live(pid gen.PID) (*process, error) {
	if n.ended() {
		return nil, gen.ErrNodeTerminated
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.process(pid)
}

func (n *node) SendExit(pid gen.PID, reason error) error {
	if reason == nil {
		return gen.ErrIncorrect
	}
	p, err := n.live(pid)
	if err != nil {
		return err
	}
	return p.exit(n.pid, reason)
}

func (n *node) Kill(pid gen.PID) error {
	p, err := n.live(pid)
	if err == nil {
		p.kill()
	}
	return err
}

func (n *node) ProcessInfo(pid gen.PID) (gen.ProcessInfo, error) {
	p, err := n.live(pid)
	if err != nil {
		return gen.ProcessInfo{}, err
	}
	return p.Info()
}

func (n *node) ProcessState(pid gen.PID) (gen.ProcessState, error) {
	p, err := n.live(pid)
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
	return list, nil
}

// all returns the processes in the order of their IDs.
func (n *node) all() []*process {
	n.mu.RLock()
	defer n.mu.RUnlock()
	list := make([]*process, 0, len(n.processes))
	for _, p := range n.processes {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *process) int { return cmp.Compare(a.pid.ID, b.pid.ID) })
	return list
}

func (n *node) MetaInfo(alias gen.Alias) (gen.MetaInfo, error) {
	if n.ended() {
		return gen.MetaInfo{}, gen.ErrNodeTerminated
	}
	m, err := n.meta(alias)
	if err != nil {
		return gen.MetaInfo{}, err
	}
	return m.info(), nil
}

func (n *node) logSource() any { return gen.MessageLogNode{Node: n.name, Creation: n.creation} }
