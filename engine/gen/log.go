package gen

import (
	"fmt"
	"io"
	"time"
)

// LogLevel is the severity of a log message, or the lowest severity that is
// logged.
type LogLevel int

// The levels in ascending severity. Their numbers are Ergo's.
const (
	// LogLevelSystem also shows what the engine itself does.
	LogLevelSystem LogLevel = -100
	LogLevelTrace  LogLevel = -2
	LogLevelDebug  LogLevel = -1
	// LogLevelDefault stands for the level of the parent: Info for a node, the
	// node's or parent process's for a process, the process's for a meta process.
	LogLevelDefault LogLevel = 0
	LogLevelInfo    LogLevel = 1
	LogLevelWarning LogLevel = 2
	LogLevelError   LogLevel = 3
	LogLevelPanic   LogLevel = 4
	// LogLevelDisabled logs nothing.
	LogLevelDisabled LogLevel = 5
)

// String returns the level's name in lower case.
func (l LogLevel) String() string {
	switch l {
	case LogLevelSystem:
		return "system"
	case LogLevelTrace:
		return "trace"
	case LogLevelDebug:
		return "debug"
	case LogLevelDefault:
		return "default"
	case LogLevelInfo:
		return "info"
	case LogLevelWarning:
		return "warning"
	case LogLevelError:
		return "error"
	case LogLevelPanic:
		return "panic"
	case LogLevelDisabled:
		return "disabled"
	}
	return fmt.Sprintf("level(%d)", int(l))
}

// Log is the logging interface of a node, a process or a meta process. All
// methods may be called from any goroutine.
type Log interface {
	// Level returns the lowest severity that is logged.
	Level() LogLevel
	// SetLevel changes it; ErrIncorrect for LogLevelDefault and for numbers that
	// are no level. Processes that exist keep their own.
	SetLevel(level LogLevel) error
	// Fields returns the fields that go with every message from here.
	Fields() []LogField
	AddFields(fields ...LogField)
	// DeleteFields removes the fields of these names.
	DeleteFields(fields ...string)

	Trace(format string, args ...any)
	Debug(format string, args ...any)
	Info(format string, args ...any)
	Warning(format string, args ...any)
	Error(format string, args ...any)
	// Panic logs at the highest severity. It does not panic.
	Panic(format string, args ...any)
}

// LogField is a name and value that goes with a log message.
type LogField struct {
	Name  string
	Value any
}

// LogOptions are the logging part of NodeOptions.
type LogOptions struct {
	// Level of the node, inherited by its processes. Zero means Info.
	Level LogLevel
	// DefaultLogger writes to standard output unless disabled.
	DefaultLogger DefaultLoggerOptions
	// Loggers that are there from the start; more by Node.LoggerAdd.
	Loggers []Logger
}

// DefaultLoggerOptions configure the logger named "default", which writes one
// line per message.
type DefaultLoggerOptions struct {
	// Disable leaves it out.
	Disable bool
	// TimeFormat is a layout of package time; "" means nanoseconds since 1970.
	TimeFormat string
	// IncludeBehavior adds the Go type behind the process or meta process.
	IncludeBehavior bool
	// IncludeName adds the registered name of the process.
	IncludeName bool
	// IncludeFields adds the fields of the message.
	IncludeFields bool
	// Filter lists the levels that are written; empty means all.
	Filter []LogLevel
	// Output receives each line in one Write; writes never overlap. Nil means
	// standard output.
	Output io.Writer
	// EnableJSON writes a JSON object per line in place of text.
	EnableJSON bool
}

// Logger is a named logger for LogOptions.
type Logger struct {
	Name   string
	Logger LoggerBehavior
	// Filter lists the levels that it receives; empty means all.
	Filter []LogLevel
}

// LoggerBehavior receives log messages.
type LoggerBehavior interface {
	// Log runs on the goroutine that logs, possibly on many at a time: it should
	// return soon. A logger that panics is removed from the node.
	Log(message MessageLog)
	// Terminate runs once, when the logger is deleted or the node has ended. No
	// Log runs then, and none follows.
	Terminate()
}

// MessageLog is one log message.
type MessageLog struct {
	Time  time.Time
	Level LogLevel
	// Source is a MessageLogNode, MessageLogProcess or MessageLogMeta.
	Source any
	// Format and Args are for fmt.Sprintf. Args must not be changed.
	Format string
	Args   []any
	Fields []LogField
}

// MessageLogNode is the source of a message that the node logs.
type MessageLogNode struct {
	Node     Atom
	Creation int64
}

// MessageLogProcess is the source of a message that a process logs.
type MessageLogProcess struct {
	Node     Atom
	PID      PID
	Name     Atom
	Behavior string
}

// MessageLogMeta is the source of a message that a meta process logs.
type MessageLogMeta struct {
	Node     Atom
	Parent   PID
	Meta     Alias
	Behavior string
}
