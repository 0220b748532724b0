package gen

import "time"

// Node is a running node. All methods may be called from any goroutine. After the node has ended,
// those that return an error return ErrNodeTerminated.
type Node interface {
	Name() Atom
	IsAlive() bool // it has neither ended nor begun to stop
	Uptime() int64 // in seconds
	// PID is the sender of what the node sends and the parent of what it spawns.
	PID() PID
	Creation() int64

	EnvList() map[Env]any
	// SetEnv sets a variable for processes that are spawned from now on; nil removes it.
	SetEnv(name Env, value any)
	Env(name Env) (any, bool)
	EnvDefault(name Env, def any) any

	// Spawn starts a process and returns after its ProcessInit has. The error is that of
	// ProcessInit, or TerminateReasonPanic where it panicked.
	Spawn(factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	SpawnRegister(register Atom, factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	RegisterName(name Atom, pid PID) error // ErrTaken where a live process has it
	UnregisterName(name Atom) (PID, error)

	MetaInfo(meta Alias) (MetaInfo, error)
	ProcessInfo(pid PID) (ProcessInfo, error)
	ProcessList() ([]PID, error)
	ProcessState(pid PID) (ProcessState, error)

	Send(to any, message any) error
	SendWithPriority(to any, message any, priority MessagePriority) error
	SendExit(pid PID, reason error) error
	// Kill makes a process unreachable at once and ends it with TerminateReasonKill as soon as
	// its running callback returns. A blocked Call of it returns at once.
	Kill(pid PID) error

	CertManager() CertManager
	Log() Log
	// LoggerAdd adds a logger for the levels of the filter; none means all.
	LoggerAdd(name string, logger LoggerBehavior, filter ...LogLevel) error
	// LoggerDelete ends a logger. It must not be called from a Log.
	LoggerDelete(name string)
	MakeRef() Ref

	// Stop ends every process with TerminateReasonShutdown, waits for all processes and their
	// meta processes, and ends the loggers. A callback must start it on another goroutine.
	Stop()
	// StopForce kills every process and does not wait for callbacks that still run.
	StopForce()
	Wait()
	WaitWithTimeout(timeout time.Duration) error // ErrTimeout
	// SetCTRLC makes the first SIGINT or SIGTERM stop the node gracefully.
	SetCTRLC(enable bool)
}

// NodeOptions are the options of a node. The zero value is a usable default.
type NodeOptions struct {
	Env         map[Env]any // inherited by all processes
	Network     NetworkOptions
	CertManager CertManager
	Log         LogOptions
	Version     Version
}

// NetworkOptions have no effect: the engine runs single nodes.
type NetworkOptions struct {
	Mode               NetworkMode
	Cookie             string
	InsecureSkipVerify bool
}

// NetworkMode is how a node takes part in a cluster.
type NetworkMode int

// NetworkModeDisabled is a node on its own, which is all that this engine runs.
const NetworkModeDisabled NetworkMode = -1

// Version describes the application that runs the node.
type Version struct{ Name, Release, Commit, License string }
