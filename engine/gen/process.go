package gen

import (
	"fmt"
	"time"
)

// DefaultRequestTimeout is how many seconds a Call waits for its response.
const DefaultRequestTimeout int = 5

// Defaults of TCP meta processes.
const (
	// DefaultTCPBufferSize is in bytes.
	DefaultTCPBufferSize = 65535
	// DefaultKeepAlivePeriod is the time between TCP keep-alive probes.
	DefaultKeepAlivePeriod = 15 * time.Second
)

// ProcessFactory makes the value behind one process.
type ProcessFactory func() ProcessBehavior

// CancelFunc prevents what was scheduled. It reports whether it came in time.
type CancelFunc func() bool

// ProcessBehavior is the value behind a process. Embed
// [ergo.services/ergo/act.Actor], which implements it, and write the callbacks
// of act.ActorBehavior.
type ProcessBehavior interface {
	// ProcessInit runs on the goroutine that spawns. An error ends the process
	// without ProcessTerminate.
	ProcessInit(process Process, args ...any) error
	// ProcessRun handles what is in the mailbox and returns when it is empty. An
	// error ends the process.
	ProcessRun() error
	// ProcessTerminate runs once, after the last ProcessRun.
	ProcessTerminate(reason error)
}

// ProcessState says what a process does.
type ProcessState int32

const (
	ProcessStateInit ProcessState = 1
	// ProcessStateSleep is a process without messages. It owns no goroutine.
	ProcessStateSleep   ProcessState = 2
	ProcessStateRunning ProcessState = 4
	// ProcessStateWaitResponse is a process blocked in a Call.
	ProcessStateWaitResponse ProcessState = 8
	ProcessStateTerminated   ProcessState = 16
)

// String returns the state's name in lower case.
func (s ProcessState) String() string {
	switch s {
	case ProcessStateInit:
		return "init"
	case ProcessStateSleep:
		return "sleep"
	case ProcessStateRunning:
		return "running"
	case ProcessStateWaitResponse:
		return "wait response"
	case ProcessStateTerminated:
		return "terminated"
	}
	return fmt.Sprintf("state(%d)", int32(s))
}

// ProcessOptions are the options of a process. The zero value is a usable
// default.
type ProcessOptions struct {
	// MailboxSize limits the messages that wait, for each priority on its own.
	// Zero means no limit; exits and down messages are not limited.
	MailboxSize int64
	// Env is added to what is inherited from the parent.
	Env map[Env]any
	// SendPriority of what the process sends where nothing else is said.
	SendPriority MessagePriority
	// Fallback receives what does not fit into the mailbox.
	Fallback ProcessFallback
	// LinkParent ends the process with its parent, LinkChild the parent with the
	// process. Neither has an effect where the node is the parent.
	LinkParent bool
	LinkChild  bool
	// LogLevel of the process; zero means that of its parent.
	LogLevel LogLevel
}

// ProcessFallback names the process that receives, wrapped in MessageFallback,
// what does not fit into a mailbox. Calls are not forwarded.
type ProcessFallback struct {
	Enable bool
	Name   Atom
	// Tag is handed on in the MessageFallback.
	Tag string
}

// ProcessInfo describes a process at one moment.
type ProcessInfo struct {
	PID  PID
	Name Atom
	// Behavior is the Go type behind the process.
	Behavior    string
	MessagesIn  uint64
	MessagesOut uint64
	State       ProcessState
	// Metas are its live meta processes.
	Metas []Alias
}

// Process is what a process can do. Methods may be called from any goroutine
// while the process lives, except that only its own callbacks may block in a
// Call or Inspect. After its end, those that return an error return
// ErrProcessTerminated.
type Process interface {
	Node() Node
	// Name is the registered name, or "".
	Name() Atom
	PID() PID
	// Leader is that of the parent; the node leads what it spawns itself.
	Leader() PID
	Parent() PID
	// Uptime is in seconds.
	Uptime() int64
	State() ProcessState

	// Spawn starts a child. See Node.Spawn. Children outlive their parent unless
	// linked.
	Spawn(factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	SpawnRegister(register Atom, factory ProcessFactory, options ProcessOptions, args ...any) (PID, error)
	// SpawnMeta starts a meta process, which ends with this process at the latest.
	// Its Init runs on the calling goroutine. Where that fails, the error is
	// SpawnMeta's and Terminate is not called: that is left to the caller.
	SpawnMeta(behavior MetaBehavior, options MetaOptions) (Alias, error)

	// RegisterName names this process. See Node.RegisterName.
	RegisterName(name Atom) error
	UnregisterName() error
	EnvList() map[Env]any
	// SetEnv sets a variable, also for the meta processes; nil removes it.
	SetEnv(name Env, value any)
	Env(name Env) (any, bool)
	EnvDefault(name Env, def any) any

	SendPriority() MessagePriority
	// SetSendPriority returns ErrIncorrect where there is no such priority.
	SetSendPriority(priority MessagePriority) error
	// CreateAlias makes a further address of this process.
	CreateAlias() (Alias, error)
	// DeleteAlias returns ErrAliasUnknown where it is no alias of this process.
	DeleteAlias(alias Alias) error
	Aliases() []Alias

	// Send delivers to a PID, ProcessID, Alias, Atom or string (the last two are
	// local names); anything else is ErrUnsupported. It does not wait. Errors:
	// ErrProcessUnknown for a target that never was, ErrProcessTerminated for one
	// that has ended, ErrProcessIncarnation for one of an earlier run,
	// ErrProcessMailboxFull or ErrMetaMailboxFull, ErrNoConnection for another
	// node. Messages of one sender and priority arrive in order.
	//
	// A PID, ProcessID or Alias in an any is an allocation where it is converted
	// for each call; SendPID, SendProcessID and SendAlias spare it.
	Send(to any, message any) error
	SendPID(to PID, message any) error
	SendProcessID(to ProcessID, message any) error
	SendAlias(to Alias, message any) error
	SendWithPriority(to any, message any, priority MessagePriority) error
	// SendImportant is Send: on one node the error is the delivery's result.
	SendImportant(to any, message any) error
	// SendAfter is Send later, at the priority of now. Its result is not reported.
	SendAfter(to any, message any, after time.Duration) (CancelFunc, error)
	// SendExit asks a process to end with the reason, which must not be nil (ErrIncorrect). To itself and to
	// its parent a process can't send one (ErrNotAllowed): it returns an error from a callback instead.
	SendExit(to PID, reason error) error
	// SendExitMeta ends a meta process: its alias is gone when SendExitMeta
	// returns, its Terminate runs after the handler that is running.
	SendExitMeta(meta Alias, reason error) error
	// SendResponse answers a call whose HandleCall returned a nil result.
	// ErrResponseIgnored where the caller no longer waits.
	SendResponse(to PID, ref Ref, message any) error
	// SendResponseError answers so that the Call returns err.
	SendResponseError(to PID, ref Ref, err error) error

	// Call sends a request and blocks for the response, DefaultRequestTimeout
	// seconds at most. Errors: those of Send, ErrTimeout, the error of
	// SendResponseError, and ErrNotAllowed for a call to itself or from elsewhere
	// than its own callbacks.
	Call(to any, message any) (any, error)
	// CallWithTimeout waits for so many seconds; zero or less means the default.
	CallWithTimeout(to any, message any, timeout int) (any, error)
	CallPID(to PID, message any, timeout int) (any, error)
	CallProcessID(to ProcessID, message any, timeout int) (any, error)
	CallAlias(to Alias, message any, timeout int) (any, error)

	// Inspect returns what the target's HandleInspect does. It blocks like Call.
	Inspect(target PID, item ...string) (map[string]string, error)
	InspectMeta(meta Alias, item ...string) (map[string]string, error)

	// Link ends this process with the target, a PID or an Alias, and with its
	// reason; not the other way round. Anything else is ErrUnsupported.
	Link(target any) error
	Unlink(target any) error
	LinkPID(target PID) error
	UnlinkPID(target PID) error
	LinkAlias(target Alias) error
	UnlinkAlias(target Alias) error
	// Monitor delivers a MessageDown... when the target ends: a PID, an Alias, or
	// a name as ProcessID, Atom or string. Anything else is ErrUnsupported.
	Monitor(target any) error
	Demonitor(target any) error
	MonitorPID(pid PID) error
	DemonitorPID(pid PID) error
	MonitorAlias(alias Alias) error
	DemonitorAlias(alias Alias) error

	Log() Log
	Info() (ProcessInfo, error)
	// MetaInfo describes a meta process; ErrMetaUnknown where it has ended.
	MetaInfo(meta Alias) (MetaInfo, error)
	// Behavior is what the factory made.
	Behavior() ProcessBehavior
}
