package gen

import (
	"cmp"
	"io"
	"strconv"
	"time"
)

// LogLevel is the severity of a log message, or the lowest severity that is logged.
type LogLevel int

// The levels in ascending severity. Their numbers are Ergo's.
const (
	LogLevelSystem   LogLevel = -100
	LogLevelTrace    LogLevel = -2
	LogLevelDebug    LogLevel = -1
	LogLevelDefault  LogLevel = 0 // that of the parent; Info for a node
	LogLevelInfo     LogLevel = 1
	LogLevelWarning  LogLevel = 2
	LogLevelError    LogLevel = 3
	LogLevelPanic    LogLevel = 4
	LogLevelDisabled LogLevel = 5
)

var levelNames = map[LogLevel]string{
	LogLevelSystem: "system", LogLevelTrace: "trace", LogLevelDebug: "debug",
	LogLevelDefault: "default", LogLevelInfo: "info", LogLevelWarning: "warning",
	LogLevelError: "error", LogLevelPanic: "panic", LogLevelDisabled: "disabled",
}

// String returns the level's name in lower case.
func (l LogLevel) String() string {
	return cmp.Or(levelNames[l], "level("+strconv.Itoa(int(l))+")")
}

// Log logs for a node, a process or a meta process. Methods may be called from any goroutine.
type Log interface {
	Level() LogLevel
	// SetLevel changes the level. Processes that exist keep their own.
	SetLevel(level LogLevel) error
	// Fields returns the fields that go with every message from here.
	Fields() []LogField
	AddFields(fields ...LogField)
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
	Level         LogLevel
	DefaultLogger DefaultLoggerOptions
	Loggers       []Logger
}

// DefaultLoggerOptions configure the logger named "default", which writes one line per message.
type DefaultLoggerOptions struct {
	Disable bool
	// TimeFormat is a layout of package time; "" means nanoseconds since 1970.
	TimeFormat      string
	IncludeBehavior bool
	IncludeName     bool
	IncludeFields   bool
	// Filter lists the levels that are written; empty means all.
	Filter []LogLevel
	// Output receives each line in one Write; writes never overlap. Nil means standard output.
	Output io.Writer
	// EnableJSON writes a JSON object per line in place of text.
	EnableJSON bool
}

// Logger is a named logger. An empty filter means all levels.
type Logger struct {
	Name   string
	Logger LoggerBehavior
	Filter []LogLevel
}

// LoggerBehavior receives log messages.
type LoggerBehavior interface {
	// Log runs on the goroutine that logs, possibly on many at a time.
	Log(message MessageLog)
	// Terminate runs once, when the logger is deleted or the node has ended. No Log runs then,
	// and none follows.
	Terminate()
}

// MessageLog is one log message. Format and Args are for fmt.Sprintf.
type MessageLog struct {
	Time   time.Time
	Level  LogLevel
	Source any // a MessageLogNode, MessageLogProcess or MessageLogMeta
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
