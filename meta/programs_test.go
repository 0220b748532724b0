package meta_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// pki is a folder of PEM files for programs, with a manager that serves from it.
type pki struct {
	dir     string
	manager *certmanager.Manager
}

func newPKI(t *testing.T, mutual bool) pki {
	dir := t.TempDir()
	ca := tlstest.NewCA(t)
	require.NoError(t, tlstest.WriteFile(filepath.Join(dir, "root.crt"), ca.PEM(), 0o644))
	ca.Issue(t, tlstest.Leaf{CommonName: "server", Names: []string{"localhost", "127.0.0.1"}, Usage: tlstest.ServerOnly}).Files(t, dir, "server")
	ca.Issue(t, tlstest.Leaf{CommonName: "client", Usage: tlstest.ClientOnly}).Files(t, dir, "client")
	tlstest.NewCA(t).Issue(t, tlstest.Leaf{CommonName: "stranger", Usage: tlstest.ClientOnly}).Files(t, dir, "stranger")
	for _, name := range []string{"server", "client", "stranger"} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		require.NoError(t, err)
		said.key(pair)
	}
	files := certmanager.Files{Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key")}
	if mutual {
		files.ClientCAs = filepath.Join(dir, "root.crt")
	}
	m, err := certmanager.New(certmanager.Options{Source: files})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return pki{dir, m}
}

func (p pki) file(name string) string { return filepath.Join(p.dir, name) }

// program is a running program whose output can be waited for.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	mu     sync.Mutex // guards output
	output bytes.Buffer
}

func start(t *testing.T, name string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	p := &program{t: t, cmd: exec.CommandContext(ctx, needs.Program(t, name), args...)}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	return p
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

func (p *program) says(text string) {
	p.t.Helper()
	if !assert.Eventually(p.t, func() bool { return strings.Contains(p.text(), text) }, testTimeout, 5*time.Millisecond, "it never says %q", text) {
		p.t.Fatalf("it said:\n%s", p.text())
	}
}

func TestOpenSSL(t *testing.T) {
	for _, version := range []string{"tls1_2", "tls1_3"} {
		for _, mutual := range []bool{false, true} {
			for _, client := range []string{"", "client", "stranger"} {
				name := version + map[bool]string{true: " mutual"}[mutual] + " as " + client
				t.Run(name, func(t *testing.T) { testOpenSSL(t, version, mutual, client) })
			}
		}
	}
}

func testOpenSSL(t *testing.T, version string, mutual bool, client string) {
	p := newPKI(t, mutual)
	a := newHost(t).spawn(echo)
	id, addr := a.listen(meta.TCPServerOptions{CertManager: p.manager})
	args := []string{"s_client", "-connect", addr, "-servername", "localhost", "-verify_hostname", "localhost",
		"-CAfile", p.file("root.crt"), "-verify_return_error", "-" + version, "-quiet", "-no_ign_eof"}
	if client != "" {
		args = append(args, "-cert", p.file(client+".crt"), "-key", p.file(client+".key"))
	}
	openssl := start(t, "openssl", args...)
	if mutual && client != "client" {
		assert.Error(t, openssl.cmd.Wait())
		assert.Contains(t, openssl.text(), "alert", "it must hear why")
		eventually(t, func() bool { return a.inspect(id)["handshake failures"] == "1" }, "the refusal is counted")
		a.quiet()
		return
	}
	connect := expect[meta.MessageTCPConnect](a)
	assert.Equal(t, map[string]string{"tls1_2": "TLS 1.2", "tls1_3": "TLS 1.3"}[version], connect.Peer.Version)
	assert.Equal(t, "localhost", connect.Peer.SNI)
	if mutual {
		assert.Equal(t, "CN=client", connect.Peer.Subject)
		assert.True(t, connect.Peer.Verified)
	}
	io.WriteString(openssl.stdin, "hello from openssl\n")
	openssl.says("hello from openssl")
	openssl.stdin.Close()
	require.NoError(t, openssl.cmd.Wait(), openssl.text())
	assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
}

func TestCurl(t *testing.T) {
	for _, client := range []string{"", "client"} {
		t.Run("as "+client, func(t *testing.T) {
			p := newPKI(t, true)
			a := newHost(t).spawn(func(o *owner, message any) bool {
				m, ok := message.(meta.MessageTCP)
				if ok && bytes.HasSuffix(m.Data, []byte("\r\n\r\n")) {
					o.SendAlias(m.ID, meta.MessageTCP{Data: []byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello to curl\n")})
					o.SendAlias(m.ID, meta.MessageTCPClose{})
				}
				return ok
			})
			_, addr := a.listen(meta.TCPServerOptions{CertManager: p.manager})
			args := []string{"-sS", "--cacert", p.file("root.crt"), "https://" + addr}
			if client != "" {
				args = append(args, "--cert", p.file(client+".crt"), "--key", p.file(client+".key"))
			}
			curl := start(t, "curl", args...)
			err := curl.cmd.Wait()
			if client == "" {
				assert.Error(t, err)
				assert.Contains(t, curl.text(), "alert")
				a.quiet()
				return
			}
			require.NoError(t, err, curl.text())
			assert.Equal(t, "hello to curl\n", curl.text())
			expect[meta.MessageTCPConnect](a)
			assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
		})
	}
}

// An attempt to renegotiate ends the connection: each would cost a handshake.
func TestRenegotiationIsRefused(t *testing.T) {
	p := newPKI(t, false)
	a := newHost(t).spawn(echo)
	_, addr := a.listen(meta.TCPServerOptions{CertManager: p.manager})
	openssl := start(t, "openssl", "s_client", "-connect", addr, "-tls1_2", "-CAfile", p.file("root.crt"))
	expect[meta.MessageTCPConnect](a)
	io.WriteString(openssl.stdin, "R\n")
	assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrProtocol)
	openssl.cmd.Wait()
	assert.Contains(t, openssl.text(), "alert unexpected message")
}

// A peer may ask for new keys at any time (TLS 1.3), in the middle of what it sends.
func TestKeyUpdate(t *testing.T) {
	p := newPKI(t, false)
	a := newHost(t).spawn(echo)
	_, addr := a.listen(meta.TCPServerOptions{CertManager: p.manager})
	openssl := start(t, "openssl", "s_client", "-connect", addr, "-tls1_3", "-CAfile", p.file("root.crt"))
	expect[meta.MessageTCPConnect](a)
	for _, step := range []struct{ types, seen string }{
		{"first", "first"}, {"k", "KEYUPDATE"}, {"second", "second"}, {"K", "second\nKEYUPDATE"}, {"third", "third"},
	} {
		io.WriteString(openssl.stdin, step.types+"\n")
		openssl.says(step.seen) // what is typed in one read with a command is lost
	}
	a.quiet()
	openssl.stdin.Close()
	openssl.cmd.Wait()
	assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
}
