package gen

import "time"

// DefaultRequestTimeout is how many seconds a Call waits for its response.
const DefaultRequestTimeout int = 5

// Defaults of TCP meta processes.
const (
	DefaultTCPBufferSize   = 65535 // bytes
	DefaultKeepAlivePeriod = 15 * time.Second
)

// ProcessFactory makes the value behind one process.
type ProcessFactory func() ProcessBehavior

// CancelFunc prevents what was scheduled. It reports whether it came in time.
type CancelFunc func() bool

// ProcessBehavior is the value behind a process. [ergo.services/ergo/act.Actor] implements it.
type ProcessBehavior interface {
	// ProcessInit runs on the goroutine that spawns. ProcessTerminate does not follow an error.
	ProcessInit(process Process, args ...any) error
	// ProcessRun handles what is in the mailbox. An error ends the process.
	ProcessRun() error
	ProcessTerminate(reason error)
}

// ProcessState is the state of a process.
type ProcessState int32

const (
	ProcessStateInit         ProcessState = 1
	ProcessStateSleep        ProcessState = 2 // without messages, and without a goroutine
	ProcessStateRunning      ProcessState = 4
	ProcessStateWaitResponse ProcessState = 8 // blocked in a Call
	ProcessStateTerminated   ProcessState = 16
)

// ProcessOptions are the options of a process. The zero value is a usable default.
type ProcessOptions struct {
	// MailboxSize limits the messages that wait, for each priority; zero means no limit.
	MailboxSize  int64
	Env          map[Env]any // in addition to that of the parent
	SendPriority MessagePriority
	Fallback     ProcessFallback // receives what does not fit into the mailbox
	// LinkParent ends the process with its parent, LinkChild the parent with the process.
	LinkParent bool
	LinkChild  bool
	LogLevel   LogLevel // zero means that of the parent
}

// ProcessFallback names the process that receives, wrapped in MessageFallback, what does not fit
// into a mailbox. Calls are not forwarded.
type ProcessFallback struct {
	Enable bool
	Name   Atom
	Tag    string
}

// ProcessInfo describes a process at one moment.
type ProcessInfo struct {
	PID         PID
	Name        Atom
	Behavior    string // the Go type
	MessagesIn  uint64
	MessagesOut uint64
	State       ProcessState
	Metas       []Alias
}

// Process is what a process can do. Methods may be called from any goroutine while the process
// lives, except that only its own callbacks may block in a Call or Inspect. After its end, those
// that return an error return ErrProcessTerminated.
type Process interface {
	Node() Node
	Name() Atom
	PID() PID
	Leader() PID
	Parent() PID
	Uptime() int64
	State() ProcessState

	// Spawn starts a child, which outlives its parent unless linked. See Node.Spawn.
	Spawn(factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	SpawnRegister(register Atom, factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	// SpawnMeta starts a meta process, which ends with this process at the latest. Its Init runs
	// on the calling goroutine. Where that fails, Terminate is not called.
	SpawnMeta(behavior MetaBehavior, options MetaOptions) (Alias, error)

	RegisterName(name Atom) error
	UnregisterName() error
	EnvList() map[Env]any
	SetEnv(name Env, value any)
	Env(name Env) (any, bool)
	EnvDefault(name Env, def any) any

	SendPriority() MessagePriority
	SetSendPriority(priority MessagePriority) error
	CreateAlias() (Alias, error)
	DeleteAlias(alias Alias) error
	Aliases() []Alias

	// Send delivers to a PID, ProcessID, Alias, Atom or string; anything else is ErrUnsupported.
	// It does not wait. ErrProcessUnknown is a target that never was, ErrProcessTerminated one
	// that has ended, ErrProcessIncarnation one of an earlier run, ErrProcessMailboxFull and
	// ErrMetaMailboxFull a full one, ErrNoConnection one on another node.
	Send(to any, message any) error
	SendPID(to PID, message any) error
	SendProcessID(to ProcessID, message any) error
	SendAlias(to Alias, message any) error
	SendWithPriority(to any, message any, priority MessagePriority) error
	SendImportant(to any, message any) error // as Send: on one node the error is the result
	SendAfter(to any, message any, after time.Duration) (CancelFunc, error)
	// SendExit asks a process, other than itself and its parent, to end with the reason.
	SendExit(to PID, reason error) error
	// SendExitMeta ends a meta process: its alias is gone when SendExitMeta returns, its
	// Terminate runs after the handler that is running.
	SendExitMeta(meta Alias, reason error) error
	// SendResponse answers a call whose HandleCall returned a nil result. ErrResponseIgnored is
	// that the caller no longer waits.
	SendResponse(to PID, ref Ref, message any) error
	SendResponseError(to PID, ref Ref, err error) error

	// Call sends a request and blocks for the response. Errors: those of Send, ErrTimeout, the
	// error of SendResponseError, and ErrNotAllowed for a call to itself or from elsewhere than
	// its own callbacks. A timeout is in seconds; zero or less means DefaultRequestTimeout.
	Call(to any, message any) (any, error)
	CallWithTimeout(to any, message any, timeout int) (any, error)
	CallPID(to PID, message any, timeout int) (any, error)
	CallProcessID(to ProcessID, message any, timeout int) (any, error)
	CallAlias(to Alias, message any, timeout int) (any, error)

	// Inspect returns what the target's HandleInspect does. It blocks like Call.
	Inspect(target PID, item ...string) (map[string]string, error)
	InspectMeta(meta Alias, item ...string) (map[string]string, error)

	// Link ends this process with the target, a PID or an Alias; not the other way round.
	Link(target any) error
	Unlink(target any) error
	LinkPID(target PID) error
	UnlinkPID(target PID) error
	LinkAlias(target Alias) error
	UnlinkAlias(target Alias) error
	// Monitor delivers a MessageDown... when the target ends, whatever Send takes.
	Monitor(target any) error
	Demonitor(target any) error
	MonitorPID(pid PID) error
	DemonitorPID(pid PID) error
	MonitorAlias(alias Alias) error
	DemonitorAlias(alias Alias) error

	Log() Log
	Info() (ProcessInfo, error)
	MetaInfo(meta Alias) (MetaInfo, error)
	Behavior() ProcessBehavior
}
