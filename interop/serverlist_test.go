package interop

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/ergotls/ergotls/meta"
)

const (
	askHTTP    = "GET / HTTP/1.0\r\n\r\n"
	answerHTTP = "HTTP/1."
)

var servers = []server{
	{
		name: "openssl s_server", binary: "openssl", version: []string{`OpenSSL (\S+)`, "openssl", "version"},
		start: startOpenSSL, answer: "olleh", errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
	},
	{
		name: "gnutls-serv", binary: "gnutls-serv", version: []string{`gnutls-serv (\S+)`, "gnutls-serv", "--version"},
		start: startGnuTLS, answer: "hello\n", errorText: regexp.MustCompile(`Error in handshake: (.*)`),
	},
	{
		name: "ncat", binary: "ncat", version: []string{`Version (\S+)`, "ncat", "--version"},
		start: startNcat, answer: "hello\n", errorText: regexp.MustCompile(`Ncat: (Failed SSL.*)`),
		lacks: map[string]string{"mTLS": "no option", "ALPN": "no option"},
	},
	{
		name: "NSS selfserv", binary: "selfserv", version: packageVersion("libnss3-tools"),
		start: startNSS, ask: askHTTP, answer: answerHTTP, errorText: regexp.MustCompile(`returned error (-\d+:\s.*)`),
	},
	{
		name: "BoringSSL bssl", binary: "bssl-tool", version: packageVersion("android-boringssl"),
		start: startBoringSSL, ask: askHTTP, answer: answerHTTP, errorText: regexp.MustCompile(`Error while \w+: (\w+)`),
		lacks: map[string]string{"ALPN": "no option", "wrong CA": "takes any certificate", "expired": "takes any certificate", "revoked": "takes any certificate"},
	},
	{
		name: "Java", binary: "javac", version: []string{`(?m)^openjdk (\S+)`, "java", "--version"},
		start:  func(t *testing.T, s session) *program { return java(t, "server", s).start(t) },
		answer: "hello\n", errorText: errorText,
	},
	{
		name: "Node", binary: "node", version: []string{`v(\S+)`, "node", "--version"},
		start:  func(t *testing.T, s session) *program { return node("server", s).start(t) },
		answer: "hello\n", errorText: errorText,
		unlike: map[string][]error{"wrong CA": nodeCloses, "expired": nodeCloses, "revoked": nodeCloses},
	},
	{
		name: "Python", binary: "python3", version: []string{`Python (\S+)`, "python3", "--version"},
		start:  func(t *testing.T, s session) *program { return python("server", s).start(t) },
		answer: "hello\n", errorText: errorText,
	},
	{
		name: "Erlang", binary: "escript", version: packageVersion("erlang-ssl"),
		start:  func(t *testing.T, s session) *program { return erlang("server", s).start(t) },
		answer: "hello\n", errorText: errorText,
		fresh: map[string]string{"1.2": "no: it has session IDs only, crypto/tls tickets only"},
	},
	{
		name: "nginx", binary: "nginx", version: []string{`nginx/(\S+)`, "nginx", "-v"},
		start: startNginx, ask: askHTTP, answer: "200 OK", errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
		unlike: map[string][]error{"no certificate": {errAnswered}, "wrong CA": {errAnswered}, "expired": {errAnswered}, "revoked": {errAnswered}},
	},
	{
		name: "HAProxy", binary: "haproxy", version: []string{`version (\S+)`, "haproxy", "-v"},
		start: startHAProxy, ask: askHTTP, answer: "200 OK", errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
	},
	{
		name: "stunnel", binary: "stunnel", version: []string{`stunnel (\S+)`, "stunnel", "-version"},
		start: startStunnel, answer: "hello\n", errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
		lacks: map[string]string{"ALPN": "no option"},
	},
}

// nodeCloses is because Node verifies after the handshake, and closes without an alert.
var nodeCloses = []error{meta.ErrHandshake, meta.ErrTruncated, meta.ErrReset}

func startOpenSSL(t *testing.T, s session) *program {
	args := []string{"openssl", "s_server", "-accept", s.address(), "-cert", "server.crt", "-key", "server.key", "-rev",
		"-alpn", alpn, "-tls" + strings.Replace(s.tls, ".", "_", 1)}
	if s.mutual {
		args = append(args, "-Verify", "1", "-verify_return_error", "-CAfile", "root.crt", "-CRL", "crl.pem", "-crl_check")
	}
	return command{args: args}.start(t)
}

func startGnuTLS(t *testing.T, s session) *program {
	args := []string{"gnutls-serv", "--echo", "--port", fmt.Sprint(s.port), "--x509certfile=server.crt", "--x509keyfile=server.key",
		"--alpn=" + alpn, "--priority=NORMAL:-VERS-ALL:+VERS-TLS" + s.tls}
	if s.mutual {
		args = append(args, "--require-client-cert", "--verify-client-cert", "--x509cafile=root.crt", "--x509crlfile=crl.pem")
	} else {
		args = append(args, "--disable-client-cert")
	}
	return command{args: args}.start(t)
}

func startNcat(t *testing.T, s session) *program {
	return command{
		args: []string{"ncat", "-v", "--listen", "--keep-open", "--exec", "/bin/cat", "--ssl", "--ssl-cert", "server.crt", "--ssl-key", "server.key",
			"127.0.0.1", fmt.Sprint(s.port)},
		env: []string{"OPENSSL_CONF=openssl-" + s.tls + ".cnf"},
	}.start(t)
}

func startNSS(t *testing.T, s session) *program {
	args := []string{"selfserv", "-d", nssDB(t), "-n", "server", "-p", fmt.Sprint(s.port), "-V", "tls" + s.tls + ":tls" + s.tls, "-Q", "-u", "-v"}
	if s.mutual {
		args = append(args, "-r", "-r")
	}
	return command{args: args}.start(t)
}

func startBoringSSL(t *testing.T, s session) *program {
	args := []string{"bssl-tool", "server", "-accept", fmt.Sprint(s.port), "-loop", "-www", "-cert", "server.crt", "-key", "server.key",
		"-min-version", "tls" + s.tls, "-max-version", "tls" + s.tls}
	if s.mutual {
		args = append(args, "-require-any-client-cert")
	}
	return command{args: args}.start(t)
}

func startNginx(t *testing.T, s session) *program {
	verify := ""
	if s.mutual {
		verify = fmt.Sprintf("ssl_verify_client on; ssl_client_certificate %s; ssl_crl %s;", certs.file("root.crt"), certs.file("crl.pem"))
	}
	return nginx(t, fmt.Sprintf(`server { listen %s ssl; ssl_protocols TLSv%s; ssl_certificate %s; ssl_certificate_key %s; %s
		location / { return 200 "hello\n"; } }`, s.address(), s.tls, certs.file("server.crt"), certs.file("server.key"), verify))
}

func startHAProxy(t *testing.T, s session) *program {
	verify := ""
	if s.mutual {
		verify = "verify required ca-file root.crt crl-file crl.pem"
	}
	return haproxy(t, fmt.Sprintf(`frontend server
	mode http
	log global
	error-log-format "%%[fc_err_str]: %%[ssl_fc_err_str]:"
	bind %s ssl crt server.pem alpn %s ssl-min-ver TLSv%s ssl-max-ver TLSv%[3]s %s
	http-request return status 200 content-type text/plain string hello
`, s.address(), alpn, s.tls, verify))
}

func startStunnel(t *testing.T, s session) *program {
	config := fmt.Sprintf("accept = %s\ncert = server.crt\nkey = server.key\nsslVersion = TLSv%s\nexec = /bin/cat\nexecArgs = cat\n", s.address(), s.tls)
	if s.mutual {
		config += "CAfile = root.crt\nCRLfile = crl.pem\nverifyChain = yes\n"
	}
	return stunnel(t, config)
}
