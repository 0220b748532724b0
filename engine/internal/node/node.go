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
	nodeID         = 1 // the node's virtual process
	firstProcessID = 1001
	maxAtom        = 255 // bytes
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
	workers  workers

	processIDs atomic.Uint64 // the last one that was given away; so are the next two
	aliasIDs   atomic.Uint64
	refIDs     atomic.Uint64

	processes sync.Map // PID.ID → *process
	aliases   sync.Map // Alias.ID[0] → *address
	names     sync.Map // gen.Atom → *address
	watches   watches

	living  census // processes and meta processes, until their last callback has returned
	starts  census // goroutines in a meta process's Start
	stopped atomic.Bool
	forced  chan struct{} // closed by StopForce
	done    chan struct{} // closed when the node has ended
	force   sync.Once
	finish  sync.Once
	signals signals
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
	n := &node{
		name:    name,
		started: time.Now(),
		certs:   options.CertManager,
		forced:  make(chan struct{}),
		done:    make(chan struct{}),
	}
	n.creation = n.started.UnixNano()
	n.pid = gen.PID{Node: name, ID: nodeID, Creation: n.creation}
	n.processIDs.Store(firstProcessID - 1)
	n.env.inherit(nil, options.Env)
	n.watches.init()
	n.log.init(n, level, n)
	if err := n.loggers.init(options.Log); err != nil {
		return nil, fmt.Errorf("NodeOptions.Log.Loggers: %w", err)
	}
	return n, nil
}

func (n *node) Name() gen.Atom               { return n.name }
func (n *node) IsAlive() bool                { return !n.stopped.Load() }
func (n *node) Uptime() int64                { return int64(time.Since(n.started) / time.Second) }
func (n *node) PID() gen.PID                 { return n.pid }
func (n *node) Creation() int64              { return n.creation }
func (n *node) CertManager() gen.CertManager { return n.certs }
func (n *node) Log() gen.Log                 { return &n.log }

func (n *node) EnvList() map[gen.Env]any             { return n.env.list() }
func (n *node) SetEnv(name gen.Env, value any)       { n.env.set(name, value) }
func (n *node) Env(name gen.Env) (any, bool)         { return n.env.get(name) }
func (n *node) EnvDefault(name gen.Env, def any) any { return n.env.getDefault(name, def) }
func (n *node) LoggerDelete(name string)             { n.loggers.remove(name) }
func (n *node) MakeRef() gen.Ref {
	return gen.Ref{Node: n.name, Creation: n.creation, ID: [3]uint64{n.refIDs.Add(1)}}
}

func (n *node) LoggerAdd(name string, logger gen.LoggerBehavior, filter ...gen.LogLevel) error {
	if n.ended() {
		return gen.ErrNodeTerminated
	}
	return n.loggers.add(gen.Logger{Name: name, Logger: logger, Filter: filter})
}

func (n *node) Spawn(factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	return n.spawn(nil, "", factory, options, args)
}

func (n *node) SpawnRegister(register gen.Atom, factory gen.ProcessFactory, options gen.ProcessOptions, args ...any) (gen.PID, error) {
	if err := checkName(register); err != nil {
		return gen.PID{}, err
	}
	return n.spawn(nil, register, factory, options, args)
}

func (n *node) Send(to any, message any) error {
	return n.SendWithPriority(to, message, gen.MessagePriorityNormal)
}

func (n *node) SendWithPriority(to any, message any, priority gen.MessagePriority) error {
	if n.ended() {
		return gen.ErrNodeTerminated
	}
	return n.send(n.pid, to, message, priority)
}

// live is process for the node's own methods.
func (n *node) live(pid gen.PID) (*process, error) {
	if n.ended() {
		return nil, gen.ErrNodeTerminated
	}
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
	if err != nil {
		return err
	}
	p.kill()
	return nil
}

func (n *node) ProcessInfo(pid gen.PID) (gen.ProcessInfo, error) {
	p, err := n.live(pid)
	if err != nil {
		return gen.ProcessInfo{}, err
	}
	return p.info(), nil
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
	n.eachProcess(func(p *process) { list = append(list, p.pid) })
	slices.SortFunc(list, func(a, b gen.PID) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
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

func (n *node) eachProcess(do func(*process)) {
	n.processes.Range(func(_, p any) bool {
		do(p.(*process))
		return true
	})
}

func (n *node) logSource() any { return gen.MessageLogNode{Node: n.name, Creation: n.creation} }
