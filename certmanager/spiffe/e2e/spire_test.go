//go:build linux

package e2e_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

var spire = flag.String("spire", "", "folder with spire-server and spire-agent")

// process is one that runs until the test ends. Its lines are kept.
type process struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func run(t *testing.T, env []string, path string, args ...string) *process {
	t.Helper()
	p := &process{}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	var read sync.WaitGroup
	read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		read.Wait()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", path, strings.Join(p.last(30), "\n"))
		}
	})
	return p
}

func (p *process) last(n int) []string {
	all := p.all("")
	return all[max(0, len(all)-n):]
}

// all returns the lines so far that contain a text.
func (p *process) all(text string) (some []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.Contains(line, text) {
			some = append(some, line)
		}
	}
	return some
}

// wait returns the first line that contains a text, after those that were there before.
func (p *process) wait(t *testing.T, text string, after int, most time.Duration) string {
	t.Helper()
	var line string
	require.Eventually(t, func() bool {
		all := p.all(text)
		if len(all) > after {
			line = all[after]
		}
		return line != ""
	}, most, 20*time.Millisecond, text)
	return line
}

// domain is a trust domain: a SPIRE server and one agent.
type domain struct {
	name, dir          string
	port, endpointPort uint16
	agentID            string
}

func newDomain(t *testing.T, name string) *domain {
	t.Helper()
	dir, err := os.MkdirTemp("", "spire") // the path of a socket is short
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &domain{name: name, dir: dir, port: needs.Port(t), endpointPort: needs.Port(t)}
}

// ctl is a command of spire-server, or bundle and entry of it.
func (d *domain) ctl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(*spire, "spire-server"), append(args, "-socketPath", d.dir+"/server.sock")...)
	cmd.Stdin = strings.NewReader(stdin)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v: %s", args, output)
	return string(output)
}

func (d *domain) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(d.dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// serve starts the server, which federates with another, with SVIDs of a minute.
func (d *domain) serve(t *testing.T, other *domain) {
	t.Helper()
	config := d.write(t, "server.conf", fmt.Sprintf(`
server {
	bind_address = "127.0.0.1"
	bind_port = "%d"
	socket_path = "%s/server.sock"
	trust_domain = "%s"
	data_dir = "%[2]s"
	log_level = "WARN"
	default_x509_svid_ttl = "1m"
	federation {
		bundle_endpoint {
			address = "127.0.0.1"
			port = %[4]d
			profile "https_spiffe" {}
		}
		federates_with "%[5]s" {
			bundle_endpoint_url = "https://127.0.0.1:%[6]d"
			bundle_endpoint_profile "https_spiffe" { endpoint_spiffe_id = "spiffe://%[5]s/spire/server" }
		}
	}
}
plugins {
	DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%[2]s/data.sqlite3" } }
	KeyManager "memory" { plugin_data {} }
	NodeAttestor "join_token" { plugin_data {} }
}`, d.port, d.dir, d.name, d.endpointPort, other.name, other.endpointPort))
	run(t, nil, filepath.Join(*spire, "spire-server"), "run", "-config", config)
	require.Eventually(t, func() bool {
		return exec.Command(filepath.Join(*spire, "spire-server"), "healthcheck", "-socketPath", d.dir+"/server.sock").Run() == nil
	}, time.Minute, 100*time.Millisecond, "the server of %s", d.name)
}

// attest starts the agent.
func (d *domain) attest(t *testing.T) {
	t.Helper()
	found := regexp.MustCompile(`Token: (\S+)`).FindStringSubmatch(d.ctl(t, "", "token", "generate"))
	require.NotNil(t, found)
	token := found[1]
	d.agentID = fmt.Sprintf("spiffe://%s/spire/agent/join_token/%s", d.name, token)
	config := d.write(t, "agent.conf", fmt.Sprintf(`
agent {
	data_dir = "%s/agent"
	log_level = "WARN"
	server_address = "127.0.0.1"
	server_port = "%d"
	socket_path = "%[1]s/agent.sock"
	trust_domain = "%[3]s"
	insecure_bootstrap = true
}
plugins {
	KeyManager "memory" { plugin_data {} }
	NodeAttestor "join_token" { plugin_data {} }
	WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}`, d.dir, d.port, d.name))
	run(t, nil, filepath.Join(*spire, "spire-agent"), "run", "-config", config, "-joinToken", token)
	require.Eventually(t, func() bool {
		return exec.Command(filepath.Join(*spire, "spire-agent"), "healthcheck", "-socketPath", d.dir+"/agent.sock").Run() == nil
	}, time.Minute, 100*time.Millisecond, "the agent of %s", d.name)
}

// entry registers a program by its path and returns the entry's ID.
func (d *domain) entry(t *testing.T, id, path string, more ...string) string {
	t.Helper()
	output := d.ctl(t, "", append([]string{"entry", "create", "-parentID", d.agentID, "-spiffeID", "spiffe://" + d.name + id, "-selector", "unix:path:" + path}, more...)...)
	found := regexp.MustCompile(`Entry ID\s*: (\S+)`).FindStringSubmatch(output)
	require.NotNil(t, found, output)
	return found[1]
}

// program makes a copy of this test's program: agents know programs by their paths.
func (d *domain) program(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	data, err := os.ReadFile(self)
	require.NoError(t, err)
	path := filepath.Join(d.dir, name)
	require.NoError(t, os.WriteFile(path, data, 0o755))
	return path
}

// start runs a program with its arguments.
func (d *domain) start(t *testing.T, path string, args ...string) *process {
	t.Helper()
	return run(t, []string{"E2E_PROGRAM=" + strings.Join(append([]string{"unix://" + d.dir + "/agent.sock"}, args...), " ")}, path)
}

// Two SPIRE servers that federate, with an agent each. A server and two clients talk over mutual
// TLS while their certificates of a minute are replaced; then an entry is deleted.
func TestSPIRE(t *testing.T) {
	if *spire == "" {
		t.Skip("SPIRE is not built; make spire builds and runs it")
	}
	a, b := newDomain(t, "a.example"), newDomain(t, "b.example")
	a.serve(t, b)
	b.serve(t, a)
	a.ctl(t, b.ctl(t, "", "bundle", "show", "-format", "spiffe"), "bundle", "set", "-format", "spiffe", "-id", "spiffe://b.example")
	b.ctl(t, a.ctl(t, "", "bundle", "show", "-format", "spiffe"), "bundle", "set", "-format", "spiffe", "-id", "spiffe://a.example")
	a.attest(t)
	b.attest(t)
	db, web, theirs, stranger := a.program(t, "db"), a.program(t, "web"), b.program(t, "web"), b.program(t, "cron")
	a.entry(t, "/db", db, "-federatesWith", "spiffe://b.example")
	webEntry := a.entry(t, "/web", web)
	b.entry(t, "/web", theirs, "-federatesWith", "spiffe://a.example")
	b.entry(t, "/cron", stranger, "-federatesWith", "spiffe://a.example")

	server := a.start(t, db, "serve", "spiffe://a.example/web", "spiffe://b.example/web")
	address := strings.TrimPrefix(server.wait(t, "listening ", 0, 90*time.Second), "listening ")
	client := a.start(t, web, "call", address, "spiffe://a.example/db")
	federated := b.start(t, theirs, "call", address, "spiffe://a.example/db")
	refused := b.start(t, stranger, "call", address, "spiffe://a.example/db")
	began := time.Now()
	client.wait(t, "ok ", 0, 90*time.Second)
	federated.wait(t, "ok ", 0, 90*time.Second)
	refused.wait(t, "call failed", 0, 90*time.Second)
	t.Logf("all have their identities after %v", time.Since(began).Round(time.Second))

	// Three certificates of each: at half a minute each is replaced.
	kinds := func(p *process) int {
		serials := map[string]bool{}
		for _, line := range p.all("ok ") {
			serials[line] = true
		}
		return len(serials)
	}
	began = time.Now()
	require.Eventually(t, func() bool { return kinds(client) >= 4 && kinds(federated) >= 4 }, 4*time.Minute, time.Second, "rotations")
	t.Logf("four pairs of certificates each in %v, %d and %d calls", time.Since(began).Round(time.Second), len(client.all("ok ")), len(federated.all("ok ")))
	assert.Empty(t, client.all("call failed"), "no call failed")
	assert.Empty(t, federated.all("call failed"))
	assert.Empty(t, refused.all("ok "), "the rule does not name it")

	// Without its entry the program goes on with what it has until that ends, and says so.
	a.ctl(t, "", "entry", "delete", "-entryID", webEntry)
	began = time.Now()
	client.wait(t, "what it sent last stays in service until it expires", 0, time.Minute)
	t.Logf("told after %v: %s", time.Since(began).Round(time.Second), client.all("what it sent last")[0])
	client.wait(t, "call failed", 0, 2*time.Minute)
	t.Logf("refused after %v: %s", time.Since(began).Round(time.Second), client.all("call failed")[0])
	before := len(federated.all("ok "))
	federated.wait(t, "ok ", before+10, time.Minute)
	assert.Empty(t, federated.all("call failed"), "others go on")
}
