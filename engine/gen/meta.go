package gen

import "fmt"

// MetaBehavior is the value behind a meta process, which ties blocking I/O to an
// actor: Start may block for the meta process's whole life while the other
// callbacks handle messages beside it, one at a time.
//
// The first of these ends it: Start returns, a handler returns an error, a
// callback panics, Process.SendExitMeta, the end of the parent.
type MetaBehavior interface {
	// Init runs on the goroutine that spawns, before the alias can be reached.
	// Where it fails the meta process never was, and Terminate is not called.
	Init(process MetaProcess) error
	// Start runs on a goroutine of its own. Its error is the reason of the end.
	Start() error
	// HandleMessage handles one message. An error ends the meta process.
	HandleMessage(from PID, message any) error
	// HandleCall answers a request. A nil result answers nothing: the caller times
	// out unless the parent sends the response. An error ends the meta process, so
	// errors meant for the caller travel as results.
	HandleCall(from PID, ref Ref, request any) (any, error)
	// Terminate runs exactly once, never beside a handler but possibly beside
	// Start, which it must unblock: it closes what Start reads from. The reason is
	// never nil.
	Terminate(reason error)
	// HandleInspect describes the meta process, for Process.InspectMeta.
	HandleInspect(from PID, item ...string) map[string]string
}

// MetaProcess is what a meta process can do. All methods may be called from any
// goroutine, from Init on.
type MetaProcess interface {
	// ID is the alias that the meta process is reached under.
	ID() Alias
	Parent() PID
	// Send is Process.Send with the parent as the sender. ErrProcessTerminated
	// where the parent has ended.
	Send(to any, message any) error
	SendWithPriority(to any, message any, priority MessagePriority) error
	// Spawn starts a sibling, a further meta process of the same parent. See
	// Process.SpawnMeta.
	Spawn(behavior MetaBehavior, options MetaOptions) (Alias, error)
	// Env reads the parent's environment.
	Env(name Env) (any, bool)
	EnvList() map[Env]any
	Log() Log
}

// MetaOptions are the options of a meta process. The zero value is a usable
// default.
type MetaOptions struct {
	// MailboxSize limits the messages that wait, for each priority on its own.
	// Zero means no limit.
	MailboxSize int64
	// SendPriority of what the meta process sends where nothing else is said.
	SendPriority MessagePriority
	// LogLevel of the meta process; zero means that of its parent.
	LogLevel LogLevel
}

// MetaInfo describes a meta process at one moment.
type MetaInfo struct {
	ID     Alias
	Parent PID
	// Behavior is the Go type behind the meta process.
	Behavior    string
	MessagesIn  uint64
	MessagesOut uint64
	State       MetaState
}

// MetaState says what the message side of a meta process does.
type MetaState int32

const (
	// MetaStateSleep handles no message; Start may well be running.
	MetaStateSleep      MetaState = 1
	MetaStateRunning    MetaState = 2
	MetaStateTerminated MetaState = 4
)

// String returns the state's name in lower case.
func (s MetaState) String() string {
	switch s {
	case MetaStateSleep:
		return "sleep"
	case MetaStateRunning:
		return "running"
	case MetaStateTerminated:
		return "terminated"
	}
	return fmt.Sprintf("state(%d)", int32(s))
}
