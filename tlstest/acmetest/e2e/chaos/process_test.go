//go:build linux

package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is a server that runs. One goroutine reads its reports until it ends.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	reports chan report // closed when it has ended
	log     logBuffer
}

// launch starts a server, with a command in front of it if that is needed to bring it where it is
// to run.
func (w *world) launch(front ...string) *process {
	w.t.Helper()
	t := w.t
	config, err := json.Marshal(w.setup)
	require.NoError(t, err)
	line := append(front, os.Args[0])
	p := &process{t: t, cmd: exec.Command(line[0], line[1:]...), reports: make(chan report, 1)}
	p.cmd.Env = append(os.Environ(), role+"="+asServer, setupValue+"="+string(config))
	attr := w.attr
	attr.Pdeathsig = syscall.SIGKILL
	p.cmd.SysProcAttr, p.cmd.Stderr = &attr, &p.log
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	if err := p.cmd.Start(); err != nil {
		w.forbidden("user namespace for a server", err)
	}
	go p.read(out)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of the server:\n%s", &p.log)
		}
	})
	return p
}

func (p *process) read(out io.Reader) {
	defer close(p.reports)
	lines := bufio.NewReader(out)
	for {
		var r report
		line, err := lines.ReadBytes('\n')
		if err != nil {
			p.cmd.Wait()
			return
		}
		if err := json.Unmarshal(line, &r); err != nil {
			r.Err = fmt.Sprintf("%s: %v", line, err)
		}
		p.reports <- r
	}
}

// next is its next report. The first comes when it serves, or cannot.
func (p *process) next() report {
	p.t.Helper()
	select {
	case r, ok := <-p.reports:
		require.True(p.t, ok, "the server is gone:\n%s", &p.log)
		return r
	case <-time.After(time.Minute):
		require.Fail(p.t, "the server says nothing", "%s", &p.log)
	}
	return report{}
}

func (p *process) ask(format string, args ...any) report {
	p.t.Helper()
	_, err := fmt.Fprintf(p.in, format+"\n", args...)
	require.NoError(p.t, err, "%s", &p.log)
	return p.next()
}

// kill ends it in the middle of whatever it does. It may be called twice.
func (p *process) kill() {
	p.cmd.Process.Kill()
	for range p.reports {
	}
}

// end ends it as an operator does, and is the last it says.
func (p *process) end() report {
	p.t.Helper()
	p.in.Close()
	last := p.next()
	p.kill()
	return last
}

// descriptors are the numbers of those that it has.
func (p *process) descriptors() []os.DirEntry {
	p.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	return entries
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
