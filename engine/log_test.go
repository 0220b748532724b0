package ergo_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"
)

func certificate(serial byte) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{{serial}}}
}

// recorder is a logger that keeps what it gets.
type recorder struct {
	mu       sync.Mutex
	messages []gen.MessageLog
	ended    int
}

func (r *recorder) Log(m gen.MessageLog) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, m)
}

func (r *recorder) Terminate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, m := range r.messages {
		fmt.Fprintf(&b, "[%s] %s\n", m.Level, fmt.Sprintf(m.Format, m.Args...))
	}
	return b.String()
}

// buffer is an output of a log.
type buffer struct {
	mu     sync.Mutex
	text   bytes.Buffer
	before func() // called by each Write
}

func (b *buffer) Write(p []byte) (int, error) {
	if b.before != nil {
		b.before()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func logTo(output *buffer, change func(*gen.DefaultLoggerOptions)) gen.NodeOptions {
	d := gen.DefaultLoggerOptions{Output: output}
	if change != nil {
		change(&d)
	}
	return gen.NodeOptions{Log: gen.LogOptions{DefaultLogger: d}}
}

func TestDefaultLoggerText(t *testing.T) {
	out := &buffer{}
	synctest.Test(t, func(t *testing.T) { // for its clock
		node := startNodeWith(t, logTo(out, func(d *gen.DefaultLoggerOptions) {
			d.TimeFormat = time.DateTime
			d.IncludeBehavior, d.IncludeName, d.IncludeFields = true, true, true
		}))
		a := newActor()
		pid, err := node.SpawnRegister("worker", factory(a), gen.ProcessOptions{})
		require.NoError(t, err)
		m := newMeta()
		alias, err := a.SpawnMeta(m, gen.MetaOptions{})
		require.NoError(t, err)
		a.Log().AddFields(gen.LogField{Name: "peer", Value: "x y"}, gen.LogField{Name: "n", Value: 1})
		node.Log().Info("100%% of %d", 3)
		a.Log().Warning("plain 100%")
		a.Log().DeleteFields("peer")
		assert.Equal(t, []gen.LogField{{Name: "n", Value: 1}}, a.Log().Fields())
		m.Log().Error("two\nlines\x1b[31m and a \x00, tab\t, ü")

		want := "2000-01-01 00:00:00 [info] test@localhost: 100% of 3\n" +
			"2000-01-01 00:00:00 [warning] " + pid.String() + " 'worker' ergo_test.actor: plain 100% peer=x y n=1\n" +
			"2000-01-01 00:00:00 [error] " + alias.String() + ` ergo_test.meta: two\nlines\x1b[31m and a \x00, tab` + "\t, ü\n"
		assert.Equal(t, want, out.String())
	})
}

func TestDefaultLoggerDefaults(t *testing.T) {
	out := &buffer{}
	synctest.Test(t, func(t *testing.T) {
		node := startNodeWith(t, logTo(out, nil))
		a := newActor()
		pid, err := node.SpawnRegister("worker", factory(a), gen.ProcessOptions{})
		require.NoError(t, err)
		a.Log().AddFields(gen.LogField{Name: "n", Value: 1})
		a.Log().Debug("too detailed for the default level")
		a.Log().Info("hello")
		assert.Equal(t, fmt.Sprintf("%d [info] %s: hello\n", time.Now().UnixNano(), pid), out.String())
	})
}

func TestDefaultLoggerJSON(t *testing.T) {
	out := &buffer{}
	node := startNodeWith(t, logTo(out, func(d *gen.DefaultLoggerOptions) {
		d.EnableJSON, d.TimeFormat = true, time.RFC3339
		d.IncludeBehavior, d.IncludeName, d.IncludeFields = true, true, true
	}))
	a := newActor()
	pid, err := node.SpawnRegister("worker", factory(a), gen.ProcessOptions{})
	require.NoError(t, err)
	nan := 0.0
	a.Log().AddFields(gen.LogField{Name: "err", Value: errTest}, gen.LogField{Name: "n", Value: 1})
	a.Log().Info("say \"%s\"\n", "hi")
	a.Log().AddFields(gen.LogField{Name: "nan", Value: nan / nan})
	a.Log().Info("not a number")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &got))
	_, err = time.Parse(time.RFC3339, got["time"].(string))
	require.NoError(t, err)
	delete(got, "time")
	assert.Equal(t, map[string]any{
		"level": "info", "source": pid.String(), "name": "worker", "behavior": "ergo_test.actor",
		"message": "say \"hi\"\n", "fields": map[string]any{"err": "test reason", "n": 1.0},
	}, got)
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &got))
	assert.Equal(t, "not a number", got["message"])
}

func TestDefaultLoggerFilter(t *testing.T) {
	out := &buffer{}
	node := startNodeWith(t, logTo(out, func(d *gen.DefaultLoggerOptions) {
		d.Filter = []gen.LogLevel{gen.LogLevelError, gen.LogLevelWarning}
	}))
	for _, write := range []func(string, ...any){node.Log().Info, node.Log().Warning, node.Log().Error, node.Log().Panic} {
		write("message")
	}
	assert.Equal(t, 2, strings.Count(out.String(), "\n"))
	node.LoggerDelete("default")
	node.Log().Error("message")
	assert.Equal(t, 2, strings.Count(out.String(), "\n"))
}

// While one write is under way nobody else waits for it, and who did that write does
// not do those of the others; the lines keep their order and none is lost.
func TestDefaultLoggerDoesNotBlockOthers(t *testing.T) {
	out := &buffer{}
	writing, release := make(chan struct{}, 100), make(chan struct{})
	out.before = func() {
		writing <- struct{}{}
		<-release
	}
	node := startNodeWith(t, logTo(out, nil))
	first, _ := spawn(t, node, newActor())
	require.NoError(t, node.Send(first.PID(), task(func() error {
		first.Log().Info("line 0")
		return nil
	})))
	receive(t, writing)
	second, _ := spawn(t, node, newActor())
	within(t, second, func() {
		for i := range 10 {
			second.Log().Info("line %d", i+1)
		}
	})
	release <- struct{}{}
	receive(t, writing) // line 1
	within(t, first, func() {})
	close(release)
	node.Stop() // waits for what was left to write
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 11)
	for i, line := range lines {
		assert.True(t, strings.HasSuffix(line, fmt.Sprintf("line %d", i)), line)
	}
}

func TestDefaultLoggerDropsWithoutBound(t *testing.T) {
	out := &buffer{}
	writing, release := make(chan struct{}, 100), make(chan struct{})
	out.before = func() {
		select {
		case writing <- struct{}{}:
		default:
		}
		<-release
	}
	node := startNodeWith(t, logTo(out, nil))
	a, _ := spawn(t, node, newActor())
	require.NoError(t, node.Send(a.PID(), task(func() error {
		a.Log().Info("slow")
		return nil
	})))
	receive(t, writing)
	long := strings.Repeat("x", 100<<10)
	for range 20 { // 2 MiB
		node.Log().Info(long)
	}
	close(release)
	node.Stop()
	assert.Regexp(t, `(?m)^1\d log messages were dropped`, out.String())
}

func TestLogLevels(t *testing.T) {
	log := &recorder{}
	node := startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{
		Level:         gen.LogLevelWarning,
		DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
		Loggers:       []gen.Logger{{Name: "recorder", Logger: log}},
	}})
	a, _ := spawn(t, node, newActor())
	child, loud := newActor(), newActor()
	_, err := a.Spawn(factory(loud), gen.ProcessOptions{LogLevel: gen.LogLevelTrace})
	require.NoError(t, err)
	require.NoError(t, a.Log().SetLevel(gen.LogLevelError))
	_, err = a.Spawn(factory(child), gen.ProcessOptions{})
	require.NoError(t, err)
	m, quiet := newMeta(), newMeta()
	_, err = a.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	_, err = a.SpawnMeta(quiet, gen.MetaOptions{LogLevel: gen.LogLevelDisabled})
	require.NoError(t, err)

	assert.Equal(t, gen.LogLevelWarning, node.Log().Level())
	assert.Equal(t, gen.LogLevelError, child.Log().Level(), "from the parent process")
	assert.Equal(t, gen.LogLevelTrace, loud.Log().Level())
	assert.Equal(t, gen.LogLevelError, m.Log().Level())
	assert.Equal(t, gen.LogLevelDisabled, quiet.Log().Level())
	for _, bad := range []gen.LogLevel{gen.LogLevelDefault, -50, 6} {
		assert.ErrorIs(t, node.Log().SetLevel(bad), gen.ErrIncorrect)
	}
	for name, l := range map[string]gen.Log{"node": node.Log(), "child": child.Log(), "loud": loud.Log(), "meta": m.Log(), "quiet": quiet.Log()} {
		for _, write := range []func(string, ...any){l.Trace, l.Debug, l.Info, l.Warning, l.Error, l.Panic} {
			write("%s", name)
		}
	}
	for name, want := range map[string]int{"node": 3, "child": 2, "loud": 6, "meta": 2, "quiet": 0} {
		assert.Equal(t, want, strings.Count(log.text(), "] "+name+"\n"), name)
	}
}

func TestCustomLoggers(t *testing.T) {
	first, second := &recorder{}, &recorder{}
	node := startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{
		DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
		Loggers:       []gen.Logger{{Name: "first", Logger: first}},
	}})
	require.NoError(t, node.LoggerAdd("second", second, gen.LogLevelError))
	assert.ErrorIs(t, node.LoggerAdd("second", &recorder{}), gen.ErrTaken)
	assert.ErrorIs(t, node.LoggerAdd("", &recorder{}), gen.ErrIncorrect)
	assert.ErrorIs(t, node.LoggerAdd("nil", nil), gen.ErrIncorrect)

	a := newActor()
	pid, err := node.SpawnRegister("name", factory(a), gen.ProcessOptions{})
	require.NoError(t, err)
	m := newMeta()
	alias, err := a.SpawnMeta(m, gen.MetaOptions{})
	require.NoError(t, err)
	node.Log().Info("from the node")
	a.Log().Error("from a process")
	m.Log().Error("from a meta process")
	assert.Equal(t, "[info] from the node\n[error] from a process\n[error] from a meta process\n", first.text())
	assert.Equal(t, "[error] from a process\n[error] from a meta process\n", second.text())
	assert.Equal(t, gen.MessageLogNode{Node: node.Name(), Creation: node.Creation()}, first.messages[0].Source)
	assert.Equal(t, gen.MessageLogProcess{Node: node.Name(), PID: pid, Name: "name", Behavior: "ergo_test.actor"}, first.messages[1].Source)
	assert.Equal(t, gen.MessageLogMeta{Node: node.Name(), Parent: pid, Meta: alias, Behavior: "ergo_test.meta"}, first.messages[2].Source)

	node.LoggerDelete("second")
	node.LoggerDelete("second")
	node.Log().Error("after")
	assert.Equal(t, 1, second.ended)
	assert.NotContains(t, second.text(), "after")
	node.Stop()
	assert.Equal(t, 1, first.ended, "the node ends its loggers")
	node.Log().Error("too late")
	assert.NotContains(t, first.text(), "too late")
}

// No Log runs beside or after Terminate.
func TestLoggerDeleteRacesLog(t *testing.T) {
	node := startNode(t)
	var wg sync.WaitGroup
	for range 50 {
		logger := &strict{t: t}
		require.NoError(t, node.LoggerAdd("strict", logger))
		for range 3 {
			wg.Go(func() {
				for range 20 {
					node.Log().Info("x")
				}
			})
		}
		node.LoggerDelete("strict")
		wg.Wait()
	}
}

type strict struct {
	t     *testing.T
	mu    sync.RWMutex
	ended bool
}

func (s *strict) Log(gen.MessageLog) {
	assert.True(s.t, s.mu.TryRLock(), "Log beside Terminate")
	defer s.mu.RUnlock()
	assert.False(s.t, s.ended, "Log after Terminate")
}

func (s *strict) Terminate() {
	assert.True(s.t, s.mu.TryLock(), "Terminate beside Log")
	defer s.mu.Unlock()
	s.ended = true
}

// held is a logger that waits in Log.
type held struct{ *gate }

func (h held) Log(gen.MessageLog) { _ = h.task()() }
func (held) Terminate()           {}

// The end of a logger waits for the messages that are on their way, and gets none afterwards.
func TestLoggerDeleteWhileLogging(t *testing.T) {
	first, second := held{newGate()}, &recorder{}
	node := startNodeWith(t, gen.NodeOptions{Log: gen.LogOptions{
		DefaultLogger: gen.DefaultLoggerOptions{Disable: true},
		Loggers:       []gen.Logger{{Name: "first", Logger: first}, {Name: "second", Logger: second}},
	}})
	var wg sync.WaitGroup
	wg.Go(func() { node.Log().Info("x") })
	receive(t, first.entered)
	wg.Go(func() { node.LoggerDelete("second") })
	first.open()
	wg.Wait()
	assert.Equal(t, 1, second.ended)
	assert.Equal(t, "[info] x\n", second.text())
}
