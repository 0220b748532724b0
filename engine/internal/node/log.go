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
	fields  atomic.Pointer[[]gen.LogField] // replaced, never changed: messages share it; nil: none
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

func (l *log) snapshot() []gen.LogField {
	if fields := l.fields.Load(); fields != nil {
		return *fields
	}
	return nil
}

// change replaces the fields by what f makes of them.
func (l *log) change(f func([]gen.LogField) []gen.LogField) {
	for {
		last := l.fields.Load()
		fields := f(l.snapshot())
		if l.fields.CompareAndSwap(last, &fields) {
			return
		}
	}
}

func (l *log) Fields() []gen.LogField { return slices.Clone(l.snapshot()) }

func (l *log) AddFields(fields ...gen.LogField) {
	l.change(func(last []gen.LogField) []gen.LogField { return slices.Concat(last, fields) })
}

func (l *log) DeleteFields(fields ...string) {
	l.change(func(last []gen.LogField) []gen.LogField {
		return slices.DeleteFunc(slices.Clone(last), func(f gen.LogField) bool { return slices.Contains(fields, f.Name) })
	})
}

func (l *log) Trace(format string, args ...any)   { l.write(gen.LogLevelTrace, format, args) }
func (l *log) Debug(format string, args ...any)   { l.write(gen.LogLevelDebug, format, args) }
func (l *log) Info(format string, args ...any)    { l.write(gen.LogLevelInfo, format, args) }
func (l *log) Warning(format string, args ...any) { l.write(gen.LogLevelWarning, format, args) }
func (l *log) Error(format string, args ...any)   { l.write(gen.LogLevelError, format, args) }
func (l *log) Panic(format string, args ...any)   { l.write(gen.LogLevelPanic, format, args) }

func (l *log) write(level gen.LogLevel, format string, args []any) {
	if level < l.Level() {
		return
	}
	l.loggers.log(gen.MessageLog{
		Time:   time.Now(),
		Level:  level,
		Source: l.source.logSource(),
		Format: format,
		Args:   args,
		Fields: l.snapshot(),
	})
}

// loggers are the loggers of a node.
type loggers struct {
	mu    sync.Mutex // guards changes
	over  bool
	sinks atomic.Pointer[[]*sink] // replaced, never changed
}

// sink is one logger.
type sink struct {
	gen.Logger
	mu   sync.RWMutex // write-locked for Terminate, so that no Log runs beside it
	over bool
}

func (ls *loggers) init(options gen.LogOptions) error {
	ls.sinks.Store(&[]*sink{})
	if d := options.DefaultLogger; !d.Disable {
		if err := ls.add(gen.Logger{Name: "default", Logger: newDefaultLogger(d), Filter: d.Filter}); err != nil {
			return err
		}
	}
	for _, l := range options.Loggers {
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
	current := *ls.sinks.Load()
	for _, s := range current {
		if s.Name == l.Name {
			return fmt.Errorf("logger %q: %w", l.Name, gen.ErrTaken)
		}
	}
	l.Filter = slices.Clone(l.Filter)
	next := append(slices.Clone(current), &sink{Logger: l})
	ls.sinks.Store(&next)
	return nil
}

// take removes the loggers that match and returns them.
func (ls *loggers) take(match func(*sink) bool) []*sink {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	var keep, gone []*sink
	for _, s := range *ls.sinks.Load() {
		if match(s) {
			gone = append(gone, s)
		} else {
			keep = append(keep, s)
		}
	}
	ls.sinks.Store(&keep)
	return gone
}

func (ls *loggers) remove(name string) {
	for _, s := range ls.take(func(s *sink) bool { return s.Name == name }) {
		s.end()
	}
}

func (ls *loggers) end() {
	ls.mu.Lock()
	ls.over = true
	ls.mu.Unlock()
	for _, s := range ls.take(func(*sink) bool { return true }) {
		s.end()
	}
}

func (ls *loggers) log(message gen.MessageLog) {
	for _, s := range *ls.sinks.Load() {
		if len(s.Filter) > 0 && !slices.Contains(s.Filter, message.Level) {
			continue
		}
		if v := s.log(message); v != nil {
			// It would panic again for the message that says so.
			ls.take(func(other *sink) bool { return other == s })
			ls.log(gen.MessageLog{
				Time:   time.Now(),
				Level:  gen.LogLevelError,
				Source: message.Source,
				Format: "logger %q was removed: panic: %v",
				Args:   []any{s.Name, v},
			})
		}
	}
}

// log returns what the logger panicked with.
func (s *sink) log(message gen.MessageLog) (panicked any) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.over {
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
