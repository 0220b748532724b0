package gen

import "time"

// Node is a running node. All methods may be called from any goroutine; those
// that block say so. After the node has ended, those that return an error
// return ErrNodeTerminated.
type Node interface {
	Name() Atom
	// IsAlive reports whether the node has neither ended nor begun to stop.
	IsAlive() bool
	// Uptime is in seconds.
	Uptime() int64
	// PID is the node's own virtual process: the sender of what the node sends
	// and the parent of what it spawns. It receives nothing.
	PID() PID
	// Creation tells the runs of a node of the same name apart.
	Creation() int64

	// EnvList returns a copy of the environment.
	EnvList() map[Env]any
	// SetEnv sets a variable for processes that are spawned from now on; a nil
	// value removes it.
	SetEnv(name Env, value any)
	Env(name Env) (any, bool)
	// EnvDefault returns def where there is no such variable.
	EnvDefault(name Env, def any) any

	// Spawn starts a process and returns after its ProcessInit has. The error is
	// that of ProcessInit, or TerminateReasonPanic where it panicked.
	Spawn(factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	// SpawnRegister is Spawn under a name: ErrTaken where a live process has it.
	SpawnRegister(register Atom, factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	// RegisterName names a process: ErrTaken where a live process has the name or
	// the process already has one.
	RegisterName(name Atom, pid PID) error
	// UnregisterName frees a name and returns who had it.
	UnregisterName(name Atom) (PID, error)

	// MetaInfo describes a meta process; ErrMetaUnknown where it has ended.
	MetaInfo(meta Alias) (MetaInfo, error)
	ProcessInfo(pid PID) (ProcessInfo, error)
	// ProcessList returns the live processes in the order of their IDs.
	ProcessList() ([]PID, error)
	ProcessState(pid PID) (ProcessState, error)

	// Send is Process.Send, from the node's PID and at normal priority.
	Send(to any, message any) error
	SendWithPriority(to any, message any, priority MessagePriority) error
	// SendExit asks a process to end with the reason, which must not be nil (ErrIncorrect).
	SendExit(pid PID, reason error) error
	// Kill makes a process unreachable at once and ends it with
	// TerminateReasonKill as soon as its running callback returns. A blocked Call
	// of it returns at once.
	Kill(pid PID) error

	// CertManager returns that of the options; it may be nil.
	CertManager() CertManager
	Log() Log
	// LoggerAdd adds a logger for the levels of the filter; none means all.
	// ErrTaken where a logger has the name.
	LoggerAdd(name string, logger LoggerBehavior, filter ...LogLevel) error
	// LoggerDelete ends a logger. It must not be called from its Log.
	LoggerDelete(name string)
	MakeRef() Ref

	// Stop ends every process with TerminateReasonShutdown, waits for all
	// processes and their meta processes, and ends the loggers. It blocks until
	// the node has ended, so a callback must start it on another goroutine.
	Stop()
	// StopForce kills every process and ends the node without waiting for
	// callbacks that still run. It also cuts a Stop short.
	StopForce()
	// Wait blocks until the node has ended.
	Wait()
	// WaitWithTimeout is Wait that gives up with ErrTimeout.
	WaitWithTimeout(timeout time.Duration) error
	// SetCTRLC makes the first SIGINT or SIGTERM stop the node gracefully; the
	// next one has its default effect again.
	SetCTRLC(enable bool)
}

// NodeOptions are the options of a node. The zero value is a usable default.
type NodeOptions struct {
	// Env is inherited by all processes.
	Env map[Env]any
	// Network has no effect: the engine runs single nodes.
	Network NetworkOptions
	// CertManager is what Node.CertManager returns.
	CertManager CertManager
	Log         LogOptions
	Version     Version
}

// NetworkOptions exist so that settings for Ergo compile here.
type NetworkOptions struct {
	Mode               NetworkMode
	Cookie             string
	InsecureSkipVerify bool
}

// NetworkMode says how a node takes part in a cluster.
type NetworkMode int

// NetworkModeDisabled is a node on its own, which is all that this engine runs.
const NetworkModeDisabled NetworkMode = -1

// Version describes the application that runs the node.
type Version struct {
	Name    string
	Release string
	Commit  string
	License string
}
