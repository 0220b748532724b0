package interop

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// testTimeout is how long a test waits for what must happen. A program that runs for longer is
// killed.
const testTimeout = 30 * time.Second

// program is a running program.
type program struct {
	t     *testing.T
	name  string
	stdin io.WriteCloser
	end   context.CancelFunc // kills it
	ended chan struct{}      // closed: it has ended, and err is set
	err   error

	mu     sync.Mutex // guards output
	output bytes.Buffer
}

// command is a program with its arguments and what it needs in its environment.
type command struct {
	args  []string
	env   []string
	limit time.Duration // of its run; 0: testTimeout
}

func (c command) start(t *testing.T) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(c.limit, testTimeout))
	cmd := exec.CommandContext(ctx, needs.Program(t, c.args[0]), c.args[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = certs.dir
	cmd.WaitDelay = time.Second // where a child of its own keeps its output open
	p := &program{t: t, name: c.args[0], end: cancel, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p, p
	var err error
	p.stdin, err = cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() {
		p.err = cmd.Wait()
		cancel()
		close(p.ended)
	}()
	t.Cleanup(func() {
		cancel() // kills it
		<-p.ended
		if t.Failed() {
			t.Logf("%s: %v\n%s", strings.Join(c.args, " "), p.err, p.text())
		}
	})
	return p
}

// kill ends the program without a word to its peers, and returns when it has ended.
func (p *program) kill() {
	p.end()
	<-p.ended
}

// Write takes the output of both streams.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *program) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// says waits until the output matches, or the program has ended, or it is over.
func (p *program) says(pattern *regexp.Regexp, over ...func() bool) {
	for !pattern.MatchString(p.text()) {
		select {
		case <-p.ended:
			return
		case <-time.After(tick):
			if len(over) > 0 && over[0]() {
				return
			}
		}
	}
}

// finish waits for its end and gives all of its output.
func (p *program) finish() string {
	p.t.Helper()
	p.stdin.Close()
	<-p.ended
	return p.text()
}

// version asks a program for its version: the first match of pattern in what the command prints. Of
// a program that does not know its version, the command is dpkg-query.
func version(t *testing.T, pattern string, args ...string) string {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return "unknown"
	}
	output, err := exec.CommandContext(t.Context(), path, args[1:]...).CombinedOutput()
	match := regexp.MustCompile(pattern).FindSubmatch(output)
	if match == nil {
		t.Logf("the version of %s is not in %q (%v)", args[0], output, err)
		return "unknown"
	}
	return string(match[1])
}
