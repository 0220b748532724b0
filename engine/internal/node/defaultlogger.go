package node

// Goroutine: drain, started by a Log that finds, after its own write, lines of
// others waiting. It ends when none are left.

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"ergo.services/ergo/gen"
)

// maxWaiting bounds, in bytes, the lines that wait for a slow output.
const maxWaiting = 1 << 20

// defaultLogger writes a line per message. Who logs does one write at most: while
// another write is under way the line is left for whoever writes.
type defaultLogger struct {
	options gen.DefaultLoggerOptions
	output  io.Writer

	mu      sync.Mutex
	free    *sync.Cond // writing became false
	writing bool
	lines   [][]byte // wait to be written
	size    int      // of lines, in bytes
	dropped int      // since the last line that was taken
}

func newDefaultLogger(options gen.DefaultLoggerOptions) *defaultLogger {
	l := &defaultLogger{options: options, output: options.Output}
	if l.output == nil {
		l.output = os.Stdout
	}
	l.free = sync.NewCond(&l.mu)
	return l
}

func (l *defaultLogger) Log(message gen.MessageLog) {
	line := l.format(message)
	l.mu.Lock()
	if l.writing {
		l.queue(line)
		l.mu.Unlock()
		return
	}
	l.writing = true
	l.mu.Unlock()
	l.write(line)

	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) > 0 {
		go l.drain()
		return
	}
	l.writing = false
	l.free.Broadcast()
}

func (l *defaultLogger) Terminate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.writing {
		l.free.Wait()
	}
}

// queue is called with the mutex held.
func (l *defaultLogger) queue(line []byte) {
	if l.size+len(line) > maxWaiting {
		l.dropped++
		return
	}
	l.lines = append(l.lines, line)
	l.size += len(line)
}

func (l *defaultLogger) drain() {
	for {
		l.mu.Lock()
		lines, dropped := l.lines, l.dropped
		l.lines, l.size, l.dropped = nil, 0, 0
		if len(lines) == 0 {
			l.writing = false
			l.free.Broadcast()
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for _, line := range lines {
			l.write(line)
		}
		if dropped > 0 {
			l.write(l.format(gen.MessageLog{
				Time:   time.Now(),
				Level:  gen.LogLevelWarning,
				Format: "%d log messages were dropped: the output of the log is too slow",
				Args:   []any{dropped},
			}))
		}
	}
}

func (l *defaultLogger) write(line []byte) {
	_, _ = l.output.Write(line) // there is no other place to report it
}

// entry is a message in the shape of the JSON output.
type entry struct {
	Time     string         `json:"time"`
	Level    string         `json:"level"`
	Source   string         `json:"source,omitempty"`
	Name     string         `json:"name,omitempty"`
	Behavior string         `json:"behavior,omitempty"`
	Message  string         `json:"message"`
	Fields   map[string]any `json:"fields,omitempty"`
}

func (l *defaultLogger) format(m gen.MessageLog) []byte {
	e := entry{Time: strconv.FormatInt(m.Time.UnixNano(), 10), Level: m.Level.String(), Message: m.Format}
	if l.options.TimeFormat != "" {
		e.Time = m.Time.Format(l.options.TimeFormat)
	}
	if len(m.Args) > 0 {
		e.Message = fmt.Sprintf(m.Format, m.Args...)
	}
	switch source := m.Source.(type) {
	case gen.MessageLogNode:
		e.Source = string(source.Node)
	case gen.MessageLogProcess:
		e.Source, e.Name, e.Behavior = source.PID.String(), string(source.Name), source.Behavior
	case gen.MessageLogMeta:
		e.Source, e.Behavior = source.Meta.String(), source.Behavior
	}
	if !l.options.IncludeName {
		e.Name = ""
	}
	if !l.options.IncludeBehavior {
		e.Behavior = ""
	}
	if !l.options.IncludeFields {
		m.Fields = nil
	}
	if l.options.EnableJSON {
		return e.json(m.Fields)
	}
	return e.text(m.Fields)
}

func (e *entry) json(fields []gen.LogField) []byte {
	if len(fields) > 0 {
		e.Fields = make(map[string]any, len(fields))
	}
	for _, f := range fields {
		switch f.Value.(type) {
		case nil, bool, string, int, int64, uint64, float64:
			e.Fields[f.Name] = f.Value
		default: // errors and much else would show as {}
			e.Fields[f.Name] = fmt.Sprint(f.Value)
		}
	}
	line, err := json.Marshal(e)
	if err != nil { // a field that is NaN
		e.Fields = map[string]any{"fields": fmt.Sprint(fields)}
		line, _ = json.Marshal(e)
	}
	return append(line, '\n')
}

func (e *entry) text(fields []gen.LogField) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s]", e.Time, e.Level)
	if e.Source != "" {
		b.WriteString(" " + e.Source)
	}
	if e.Name != "" {
		b.WriteString(" '" + e.Name + "'")
	}
	if e.Behavior != "" {
		b.WriteString(" " + e.Behavior)
	}
	b.WriteString(": " + e.Message)
	for _, f := range fields {
		fmt.Fprintf(&b, " %s=%v", f.Name, f.Value)
	}
	return append(oneLine(b.String()), '\n')
}

// oneLine escapes control characters, so that a message from a peer cannot forge
// a log line or reach the terminal.
func oneLine(s string) []byte {
	line := make([]byte, 0, len(s)+1)
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			line = append(line, strings.Trim(strconv.QuoteToASCII(string(rune(c))), `"`)...)
			continue
		}
		line = append(line, s[i])
	}
	return line
}
