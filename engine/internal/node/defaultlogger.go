package node

// Goroutine: drain, started by a Log that finds, after its own write, lines of others waiting. It
// ends when none are left.

import (
	"cmp"
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

// defaultLogger writes a line per message. Who logs does one write at most: while another write
// is under way the line is left for whoever writes.
type defaultLogger struct {
	options gen.DefaultLoggerOptions

	mu      sync.Mutex
	free    *sync.Cond // writing became false
	writing bool
	lines   [][]byte // wait to be written
	size    int      // of lines, in bytes
	dropped int
}

func newDefaultLogger(options gen.DefaultLoggerOptions) *defaultLogger {
	options.Output = cmp.Or(options.Output, io.Writer(os.Stdout))
	l := &defaultLogger{options: options}
	l.free = sync.NewCond(&l.mu)
	return l
}

func (l *defaultLogger) Log(message gen.MessageLog) {
	line := l.format(message)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.writing:
		l.writing = true
		l.write(line)
		if len(l.lines) > 0 {
			go l.drain()
		} else {
			l.rest()
		}
	case l.size+len(line) > maxWaiting:
		l.dropped++
	default:
		l.lines = append(l.lines, line)
		l.size += len(line)
	}
}

// write unlocks the mutex for the time of the write.
func (l *defaultLogger) write(line []byte) {
	l.mu.Unlock()
	defer l.mu.Lock()
	_, _ = l.options.Output.Write(line) // there is no other place to report an error
}

// rest is called with the mutex held.
func (l *defaultLogger) rest() {
	l.writing = false
	l.free.Broadcast()
}

func (l *defaultLogger) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.lines) > 0 {
		line := l.lines[0]
		l.lines = l.lines[1:]
		l.size -= len(line)
		l.write(line)
		if len(l.lines) == 0 && l.dropped > 0 {
			dropped := []any{l.dropped}
			l.dropped = 0
			l.write(l.format(gen.MessageLog{
				Time: time.Now(), Level: gen.LogLevelWarning, Args: dropped,
				Format: "%d log messages were dropped: the output of the log is too slow",
			}))
		}
	}
	l.rest()
}

func (l *defaultLogger) Terminate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.writing {
		l.free.Wait()
	}
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
	o := &l.options
	e := entry{Time: strconv.FormatInt(m.Time.UnixNano(), 10), Level: m.Level.String(), Message: m.Format}
	if o.TimeFormat != "" {
		e.Time = m.Time.Format(o.TimeFormat)
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
	if !o.IncludeName {
		e.Name = ""
	}
	if !o.IncludeBehavior {
		e.Behavior = ""
	}
	if !o.IncludeFields {
		m.Fields = nil
	}
	if o.EnableJSON {
		return e.json(m.Fields)
	}
	return e.text(m.Fields)
}

func (e *entry) json(fields []gen.LogField) []byte {
	e.Fields = make(map[string]any, len(fields))
	for _, f := range fields {
		switch f.Value.(type) {
		case nil, bool, string, int, int64, uint64:
			e.Fields[f.Name] = f.Value
		default: // errors and much else would show as {}, and JSON has no NaN
			e.Fields[f.Name] = fmt.Sprint(f.Value)
		}
	}
	line, _ := json.Marshal(e)
	return append(line, '\n')
}

func (e *entry) text(fields []gen.LogField) []byte {
	line := e.Time + " [" + e.Level + "]"
	if e.Source != "" {
		line += " " + e.Source
	}
	if e.Name != "" {
		line += " '" + e.Name + "'"
	}
	if e.Behavior != "" {
		line += " " + e.Behavior
	}
	line += ": " + e.Message
	for _, f := range fields {
		line += fmt.Sprintf(" %s=%v", f.Name, f.Value)
	}
	return append(oneLine(line), '\n')
}

// oneLine escapes control characters, so that a message from a peer cannot forge a log line or
// reach the terminal.
func oneLine(s string) []byte {
	line := make([]byte, 0, len(s)+1)
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			line = append(line, strings.Trim(strconv.QuoteToASCII(string(rune(c))), `"`)...)
		} else {
			line = append(line, c)
		}
	}
	return line
}
