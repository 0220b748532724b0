package gen

// MessagePriority orders the messages of a mailbox: all of Max are handled before any of High, and
// all of High before any of Normal.
type MessagePriority int

const (
	MessagePriorityNormal MessagePriority = 0
	MessagePriorityHigh   MessagePriority = 1
	MessagePriorityMax    MessagePriority = 2
)

// MessageDownPID tells the one who monitors a process that it has ended.
type MessageDownPID struct {
	PID    PID
	Reason error
}

// MessageDownAlias tells the one who monitors an alias that its meta process or process has ended,
// or, with ErrAliasUnknown, that the process deleted it.
type MessageDownAlias struct {
	Alias  Alias
	Reason error
}

// MessageDownProcessID tells the one who monitors a name that its process has ended, or, with
// ErrNameUnknown, that the name was unregistered.
type MessageDownProcessID struct {
	ProcessID ProcessID
	Reason    error
}

// MessageExitPID is an exit from a process, or from a link to it, where exits are trapped.
type MessageExitPID struct {
	PID    PID
	Reason error
}

// MessageExitAlias is an exit from a link to an alias, where exits are trapped.
type MessageExitAlias struct {
	Alias  Alias
	Reason error
}

// MessageFallback carries what did not fit into the mailbox of PID.
type MessageFallback struct {
	PID     PID
	Tag     string
	Message any
}

// MessageEvent is the argument of a callback that this engine does not call.
type MessageEvent struct{}
