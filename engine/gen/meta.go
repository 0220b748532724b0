package gen

// MetaBehavior is the value behind a meta process, which ties blocking I/O to an actor: Start may
// block for the meta process's whole life while the other callbacks handle messages beside it, one
// at a time. The first of these ends it: Start returns, a handler returns an error, a callback
// panics, Process.SendExitMeta, the end of the parent.
type MetaBehavior interface {
	// Init runs on the goroutine that spawns. Where it fails, Terminate is not called.
	Init(process MetaProcess) error
	// Start runs on a goroutine of its own. Its error is the reason of the end.
	Start() error
	HandleMessage(from PID, message any) error
	// HandleCall answers a request; a nil result answers nothing. An error ends the meta
	// process, so errors meant for the caller travel as results.
	HandleCall(from PID, ref Ref, request any) (any, error)
	// Terminate runs exactly once, never beside a handler but possibly beside Start, which it
	// must unblock: it closes what Start reads from. The reason is never nil.
	Terminate(reason error)
	HandleInspect(from PID, item ...string) map[string]string
}

// MetaProcess is what a meta process can do, from Init on and from any goroutine.
type MetaProcess interface {
	ID() Alias
	Parent() PID
	// Send is Process.Send with the parent as the sender.
	Send(to any, message any) error
	SendWithPriority(to any, message any, priority MessagePriority) error
	// Spawn starts a sibling, a further meta process of the same parent.
	Spawn(behavior MetaBehavior, options MetaOptions) (Alias, error)
	// Env reads the parent's environment.
	Env(name Env) (any, bool)
	EnvList() map[Env]any
	Log() Log
}

// MetaOptions are the options of a meta process. See ProcessOptions.
type MetaOptions struct {
	MailboxSize  int64
	SendPriority MessagePriority
	LogLevel     LogLevel
}

// MetaInfo describes a meta process at one moment.
type MetaInfo struct {
	ID          Alias
	Parent      PID
	Behavior    string // the Go type
	MessagesIn  uint64
	MessagesOut uint64
	State       MetaState
}

// MetaState is the state of the message side of a meta process. Start may be running in any state.
type MetaState int32

const (
	MetaStateSleep      MetaState = 1
	MetaStateRunning    MetaState = 2
	MetaStateTerminated MetaState = 4
)
