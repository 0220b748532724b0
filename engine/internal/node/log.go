package node

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
)

// log implements gen.Log.
type log struct {
	loggers *loggers
	source  logSource
	level   atomic.Int32
	mu      sync.Mutex
	fields  []gen.LogField // replaced, never changed: messages share it
}

// logSource says who logs: a gen.MessageLogNode, -Process or -Meta.
type logSource interface{ logSource() any }

func (l *log) init(n *node, level gen.LogLevel, source logSource) {
	l.loggers, l.source = &n.loggers, source
	l.level.Store(int32(level))
}

// inheritLevel returns the level, or that of the parent where it is the default.
func inheritLevel(level, parent gen.LogLevel) (gen.LogLevel, error) {
	switch {
	case level == gen.LogLevelDefault:
		return parent, nil
	case level == gen.LogLevelSystem, level >= gen.LogLevelTrace && level <= gen.LogLevelDisabled:
		return level, nil
	}
	return 0, fmt.Errorf("LogLevel %d is no level: %w", int(level), gen.ErrIncorrect)
}

func (l *log) Level() gen.LogLevel { return gen.LogLevel(l.level.Load()) }

func (l *log) SetLevel(level gen.LogLevel) error {
	if _, err := inheritLevel(level, level); err != nil || level == gen.LogLevelDefault {
		return gen.ErrIncorrect
	}
	l.level.Store(int32(level))
	return nil
}

func (l *log) shared() []gen.LogField {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fields
}

func (l *log) Fields() []gen.LogField { return slices.Clone(l.shared()) }

func (l *log) AddFields(fields ...gen.LogField) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fields = slices.Concat(l.fields, fields)
}

func (l *log) DeleteFields(fields ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	named := func(f gen.LogField) bool { return slices.Contains(fields, f.Name) }
	l.fields = slices.DeleteFunc(slices.Clone(l.fields), named)
}

func (l *log) Trace(format string, args ...any)   { l.write(gen.LogLevelTrace, format, args) }
func (l *log) Debug(format string, args ...any)   { l.write(gen.LogLevelDebug, format, args) }
func (l *log) Info(format string, args ...any)    { l.write(gen.LogLevelInfo, format, args) }
func (l *log) Warning(format string, args ...any) { l.write(gen.LogLevelWarning, format, args) }
func (l *log) Error(format string, args ...any)   { l.write(gen.LogLevelError, format, args) }
func (l *log) Panic(format string, args ...any)   { l.write(gen.LogLevelPanic, format, args) }

func (l *log) write(level gen.LogLevel, format string, args []any) {
	if level >= l.Level() {
		l.loggers.log(gen.MessageLog{
			Time: time.Now(), Level: level, Source: l.source.logSource(),
			Format: format, Args: args, Fields: l.shared(),
		})
	}
}

// loggers are the loggers of a node.
type loggers struct {
	mu   sync.RWMutex // read-locked for each Log, so that none runs beside or after Terminate
	over bool
	list []gen.Logger
}

func (ls *loggers) init(options gen.LogOptions) error {
	all := options.Loggers
	if d := options.DefaultLogger; !d.Disable {
		first := gen.Logger{Name: "default", Logger: newDefaultLogger(d), Filter: d.Filter}
		all = slices.Concat([]gen.Logger{first}, all)
	}
	for _, l := range all {
		if err := ls.add(l); err != nil {
			return err
		}
	}
	return nil
}

func (ls *loggers) add(l gen.Logger) error {
	if l.Name == "" || l.Logger == nil {
		return fmt.Errorf("a logger needs a name and a LoggerBehavior: %w", gen.ErrIncorrect)
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.over {
		return gen.ErrNodeTerminated
	}
	if slices.ContainsFunc(ls.list, func(other gen.Logger) bool { return other.Name == l.Name }) {
		return fmt.Errorf("logger %q: %w", l.Name, gen.ErrTaken)
	}
	l.Filter = slices.Clone(l.Filter)
	ls.list = append(ls.list, l)
	return nil
}

// remove removes and ends the logger of this name, or all of them and those that might follow.
func (ls *loggers) remove(name string, all bool) {
	var gone []gen.Logger
	ls.mu.Lock()
	ls.over = ls.over || all
	ls.list = slices.DeleteFunc(ls.list, func(l gen.Logger) bool {
		match := all || l.Name == name
		if match {
			gone = append(gone, l)
		}
		return match
	})
	ls.mu.Unlock()
	for _, l := range gone {
		l.Logger.Terminate()
	}
}

func (ls *loggers) log(message gen.MessageLog) {
	ls.mu.RLock()
	defer ls.mu.RUnlock()
	for _, l := range ls.list {
		if len(l.Filter) == 0 || slices.Contains(l.Filter, message.Level) {
			l.Logger.Log(message)
		}
	}
}
