package interop

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// The proxies, which connect to our server on behalf of a client in the clear: the test.

const nginxBase = `daemon off; master_process off; pid %[1]s/pid; error_log stderr info; events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	%s
}
`

func nginx(t *testing.T, config string) *program {
	dir := t.TempDir()
	return command{args: []string{"nginx", "-p", dir, "-e", "stderr", "-c", file(t, "nginx.conf", fmt.Sprintf(nginxBase, dir, config))}}.start(t)
}

func runNginx(t *testing.T, s session) string {
	port := needs.Port(t)
	var own string
	if s.client != "" {
		own = fmt.Sprintf("proxy_ssl_certificate %s; proxy_ssl_certificate_key %s;", certs.file(s.client+".crt"), certs.file(s.client+".key"))
	}
	p := nginx(t, fmt.Sprintf(`server { listen 127.0.0.1:%d; location / {
		proxy_pass https://%s; proxy_ssl_protocols TLSv%s; proxy_ssl_name localhost; proxy_ssl_server_name on;
		proxy_ssl_verify on; proxy_ssl_trusted_certificate %s; %s
	} }`, port, s.address(), s.tls, certs.file("root.crt"), own))
	var answers strings.Builder
	for range s.connections() {
		dial(t, p, port).Close()
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		require.NoError(t, err)
		io.Copy(&answers, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK { // its reason is logged a little later
			p.says(regexp.MustCompile(`\[(error|crit)\].*\n`))
		}
	}
	http.DefaultClient.CloseIdleConnections()
	return answers.String() + p.text()
}

const haproxyBase = `global
	nbthread 1
	log stdout format raw local0
defaults
	retries 0
	timeout connect 10s
	timeout client 10s
	timeout server 10s
%s`

func haproxy(t *testing.T, config string) *program {
	return command{args: []string{"haproxy", "-db", "-f", file(t, "haproxy.cfg", fmt.Sprintf(haproxyBase, config))}}.start(t)
}

func runHAProxy(t *testing.T, s session) string {
	port := needs.Port(t)
	options := ""
	if s.client != "" {
		options += " crt " + s.client + ".pem"
	}
	if s.alpn {
		options += " alpn " + alpn
	}
	p := haproxy(t, fmt.Sprintf(`listen proxy
	mode tcp
	bind 127.0.0.1:%d
	log global
	log-format "%%[bc_err_str]: %%[ssl_bc_err_str]: done"
	server s %s ssl verify required ca-file root.crt sni str(localhost) verifyhost localhost ssl-min-ver TLSv%s ssl-max-ver TLSv%[3]s%s
`, port, s.address(), s.tls, options))
	return through(t, p, port, s, " done")
}

func stunnel(t *testing.T, config string) *program {
	return command{args: []string{"stunnel", file(t, "stunnel.conf", "foreground = yes\npid =\nsyslog = no\ndebug = info\n[x]\n"+config)}}.start(t)
}

func runStunnel(t *testing.T, s session) string {
	port := needs.Port(t)
	config := fmt.Sprintf("client = yes\naccept = 127.0.0.1:%d\nconnect = %s\nsslVersion = TLSv%s\nCAfile = root.crt\nverifyChain = yes\ncheckHost = localhost\nsni = localhost\n",
		port, s.address(), s.tls)
	if s.client != "" {
		config += fmt.Sprintf("cert = %s.crt\nkey = %[1]s.key\n", s.client)
	}
	return through(t, stunnel(t, config), port, s, "Connection closed")
}

func (s session) connections() int {
	if s.twice {
		return 2
	}
	return 1
}

// through says hello through a proxy and gives what came back and what the proxy has logged: it
// says done of each connection.
func through(t *testing.T, p *program, port uint16, s session, done string) string {
	var answers strings.Builder
	for i := range s.connections() {
		conn := dial(t, p, port)
		fmt.Fprint(conn, "hello\n")
		buffer := make([]byte, 100)
		n, _ := conn.Read(buffer) // an error where the proxy was refused
		answers.Write(buffer[:n])
		conn.Close()
		assert.Eventually(t, func() bool { return strings.Count(p.text(), done) > i }, testTimeout, tick)
	}
	return answers.String() + p.text()
}

// tick is how often a condition is looked at.
const tick = 5 * time.Millisecond

// dial connects in the clear as soon as the program listens.
func dial(t *testing.T, p *program, port uint16) net.Conn {
	for {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), testTimeout)
		if err == nil {
			conn.SetDeadline(time.Now().Add(testTimeout))
			return conn
		}
		select {
		case <-p.ended:
			t.Fatalf("%s does not listen but ended: %v", p.name, p.err)
		case <-time.After(tick):
		}
	}
}
