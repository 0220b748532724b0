package gen

//lint:file-ignore ST1012 the names are Ergo's

import "errors"

// Why a request to the engine was refused. Compare with errors.Is.
var (
	ErrNameUnknown        = errors.New("unknown name")
	ErrParentUnknown      = errors.New("unknown parent process")
	ErrNodeTerminated     = errors.New("node terminated")
	ErrProcessMailboxFull = errors.New("process mailbox is full")
	ErrProcessUnknown     = errors.New("unknown process")
	ErrProcessIncarnation = errors.New("process belongs to another run of the node")
	ErrProcessTerminated  = errors.New("process terminated")
	ErrMetaUnknown        = errors.New("unknown meta process")
	ErrMetaMailboxFull    = errors.New("meta process mailbox is full")
	ErrTargetUnknown      = errors.New("no such link or monitor")
	ErrTargetExist        = errors.New("link or monitor exists already")
	ErrAliasUnknown       = errors.New("unknown alias")
	ErrTaken              = errors.New("name is taken")
	ErrAtomTooLong        = errors.New("name is longer than 255 bytes")
	ErrTimeout            = errors.New("timed out")
	ErrUnsupported        = errors.New("not supported")
	ErrUnknown            = errors.New("unknown")
	ErrNotAllowed         = errors.New("not allowed")
	ErrIncorrect          = errors.New("incorrect value")
	ErrMalformed          = errors.New("malformed value")
	ErrResponseIgnored    = errors.New("response ignored: nobody waits for it")
	ErrTooLarge           = errors.New("too large")
	ErrNetworkStopped     = errors.New("network is stopped")
	ErrNoConnection       = errors.New("no connection to the node")
	ErrNoRoute            = errors.New("no route to the node")
	ErrInternal           = errors.New("internal error")
)

// Why a process or a meta process ended. Any other error a callback returns is a reason too.
var (
	TerminateReasonNormal   = errors.New("normal")
	TerminateReasonKill     = errors.New("kill") // by Node.Kill or Node.StopForce
	TerminateReasonPanic    = errors.New("panic")
	TerminateReasonShutdown = errors.New("shutdown") // by Node.Stop
)
