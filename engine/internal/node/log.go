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
	return 0, fmt.Errorf("no such log level: %d: %w", int(level), gen.ErrIncorrect)
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
	mu    sync.Mutex // guards what follows
	over  bool
	sinks []*sink // replaced, never changed
}

// sink is one logger.
type sink struct {
	gen.Logger
	mu   sync.RWMutex // write-locked for Terminate, so that no Log runs beside it
	over bool
}

func (ls *loggers) init(options gen.LogOptions) error {
	all := options.Loggers
	if d := options.DefaultLogger; !d.Disable {
		first := gen.Logger{Name: "default", Logger: newDefaultLogger(d), Filter: d.Filter}
		all = slices.Concat([]gen.Logger{first}, all)
	}
	for _, l := range all {
		if err := ls.add(l); err != nil {
			ls.end()
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
	if slices.ContainsFunc(ls.sinks, func(s *sink) bool { return s.Name == l.Name }) {
		return fmt.Errorf("logger %q: %w", l.Name, gen.ErrTaken)
	}
	l.Filter = slices.Clone(l.Filter)
	ls.sinks = append(slices.Clone(ls.sinks), &sink{Logger: l})
	return nil
}

// take removes the loggers that match and returns them; over says that none may follow.
func (ls *loggers) take(over bool, match func(*sink) bool) (gone []*sink) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.over = ls.over || over
	var keep []*sink
	for _, s := range ls.sinks {
		if match(s) {
			gone = append(gone, s)
		} else {
			keep = append(keep, s)
		}
	}
	ls.sinks = keep
	return gone
}

func (ls *loggers) remove(name string) {
	for _, s := range ls.take(false, func(s *sink) bool { return s.Name == name }) {
		s.end()
	}
}

func (ls *loggers) end() {
	for _, s := range ls.take(true, func(*sink) bool { return true }) {
		s.end()
	}
}

func (ls *loggers) log(message gen.MessageLog) {
	ls.mu.Lock()
	sinks := ls.sinks
	ls.mu.Unlock()
	for _, s := range sinks {
		if v := s.log(message); v != nil {
			// It would panic again for the message that says so.
			ls.take(false, func(other *sink) bool { return other == s })
			ls.log(gen.MessageLog{
				Time: time.Now(), Level: gen.LogLevelError, Source: message.Source,
				Format: "logger %q was removed: panic: %v", Args: []any{s.Name, v},
			})
		}
	}
}

// log returns what the logger panicked with.
func (s *sink) log(message gen.MessageLog) (panicked any) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.over || len(s.Filter) > 0 && !slices.Contains(s.Filter, message.Level) {
		return nil
	}
	defer func() { panicked = recover() }()
	s.Logger.Logger.Log(message)
	return nil
}

func (s *sink) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	defer func() { _ = recover() }() // the node ends in any case
	s.Logger.Logger.Terminate()
}
