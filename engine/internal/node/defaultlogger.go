package node

// Goroutine: drain, started by a Log that finds, after its own write, lines of others waiting. It
// ends when none are left.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

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
	for len(l.lines) > 0 || l.dropped > 0 {
		line := fmt.Appendf(nil, "%d log messages were dropped: the output of the log is too slow\n", l.dropped)
		if len(l.lines) > 0 {
			line, l.lines = l.lines[0], l.lines[1:]
			l.size -= len(line)
		} else {
			l.dropped = 0
		}
		l.write(line)
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
	Source   string         `json:"source"`
	Name     string         `json:"name,omitempty"`
	Behavior string         `json:"behavior,omitempty"`
	Message  string         `json:"message"`
	Fields   map[string]any `json:"fields,omitempty"`
}

func (l *defaultLogger) format(m gen.MessageLog) []byte {
	o := &l.options
	e := entry{Level: m.Level.String(), Message: m.Format, Fields: map[string]any{}}
	if e.Time = m.Time.Format(o.TimeFormat); o.TimeFormat == "" {
		e.Time = strconv.FormatInt(m.Time.UnixNano(), 10)
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
	line := e.Time + " [" + e.Level + "] " + e.Source
	if !o.IncludeName {
		e.Name = ""
	} else if e.Name != "" {
		line += " '" + e.Name + "'"
	}
	if !o.IncludeBehavior {
		e.Behavior = ""
	} else if e.Behavior != "" {
		line += " " + e.Behavior
	}
	line += ": " + e.Message
	if !o.IncludeFields {
		m.Fields = nil
	}
	for _, f := range m.Fields {
		e.Fields[f.Name] = jsonValue(f.Value)
		line += fmt.Sprintf(" %s=%v", f.Name, f.Value)
	}
	if o.EnableJSON {
		text, _ := json.Marshal(e)
		return append(text, '\n')
	}
	return []byte(oneLine(line) + "\n")
}

// jsonValue makes text of what JSON would show as {}, errors for one, or refuse, as NaN.
func jsonValue(value any) any {
	switch value.(type) {
	case nil, bool, string, int, int64, uint64:
		return value
	}
	return fmt.Sprint(value)
}

// control characters but the tab are escaped, so that a message from a peer cannot forge a log line
// or reach the terminal.
var control = regexp.MustCompile("[\x00-\x08\x0a-\x1f\x7f]")

func oneLine(s string) string {
	return control.ReplaceAllStringFunc(s, func(c string) string { return strings.Trim(strconv.Quote(c), `"`) })
}
