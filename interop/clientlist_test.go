package interop

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var clients = []client{
	{
		name: "openssl s_client", binary: "openssl", version: []string{`OpenSSL (\S+)`, "openssl", "version"},
		run:       runOpenSSL,
		errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
	},
	{
		name: "curl", binary: "curl", version: []string{`curl (\S+)`, "curl", "--version"},
		run: runCurl, errorText: regexp.MustCompile(`(?m)^curl: (.*)`),
		// It takes this alert for its own verdict on the server.
		mumbles: map[string]string{"expired 1.2": "SSL certificate verification failed"},
		fresh:   map[string]string{"1.2": "no: it does not offer its ticket, to a plain crypto/tls server neither"},
	},
	{
		name: "gnutls-cli", binary: "gnutls-cli", version: []string{`gnutls-cli (\S+)`, "gnutls-cli", "--version"},
		run: runGnuTLS, errorText: regexp.MustCompile(`\*\*\* (Received alert .*)`),
	},
	{
		name: "ncat", binary: "ncat", version: []string{`Version (\S+)`, "ncat", "--version"},
		run: runNcat, errorText: regexp.MustCompile(`Ncat: (.*error.*)`),
		lacks: map[string]string{"resumption": "keeps no session"},
		// It reports a write that fails after the alert has come; an alert that it reads is an end
		// like any other to it.
		mumbles: map[string]string{"1.2": "Input/output error", "1.3": `Input/output error|\(nothing\)`},
	},
	{
		name: "NSS tstclnt", binary: "tstclnt", version: packageVersion("libnss3-tools"),
		run: runNSS, errorText: regexp.MustCompile(`(SSL_ERROR_\w+: .*)`),
		lacks: map[string]string{"ALPN": "no option"},
	},
	{
		name: "BoringSSL bssl", binary: "bssl-tool", version: packageVersion("android-boringssl"),
		run: runBoringSSL, errorText: regexp.MustCompile(`Error while \w+: (\w+)`),
	},
	{
		name: "Java", binary: "javac", version: []string{`(?m)^openjdk (\S+)`, "java", "--version"},
		run: func(t *testing.T, s session) string { return talk(t, java(t, "client", s)) }, errorText: errorText,
		fresh: map[string]string{"1.2": "no: JSSE drops tickets without a lifetime hint, and crypto/tls gives none in TLS 1.2"},
	},
	{
		name: "Node", binary: "node", version: []string{`v(\S+)`, "node", "--version"},
		run: func(t *testing.T, s session) string { return talk(t, node("client", s)) }, errorText: errorText,
	},
	{
		name: "Python", binary: "python3", version: []string{`Python (\S+)`, "python3", "--version"},
		run: func(t *testing.T, s session) string { return talk(t, python("client", s)) }, errorText: errorText,
	},
	{
		name: "Erlang", binary: "escript", version: packageVersion("erlang-ssl"),
		run: func(t *testing.T, s session) string { return talk(t, erlang("client", s)) }, errorText: errorText,
		fresh: map[string]string{
			"1.2": "no: it has session IDs only, crypto/tls tickets only",
			"1.3": "no: its first hello has no psk_key_exchange_modes, without which crypto/tls sends no ticket",
		},
	},
	{
		name: "nginx", binary: "nginx", version: []string{`nginx/(\S+)`, "nginx", "-v"},
		run: runNginx, errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
		lacks: map[string]string{"ALPN": "no option for proxies"},
	},
	{
		name: "HAProxy", binary: "haproxy", version: []string{`version (\S+)`, "haproxy", "-v"},
		run: runHAProxy, errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
		// It logs errors of handshakes only.
		mumbles: map[string]string{"1.3": `\(nothing\)`},
	},
	{
		name: "stunnel", binary: "stunnel", version: []string{`stunnel (\S+)`, "stunnel", "-version"},
		run: runStunnel, errorText: regexp.MustCompile(`SSL routines:\w*:([^:\n]+)`),
		lacks: map[string]string{"ALPN": "no option"},
	},
}

// errorText is how the programs in testdata tell of an error.
var errorText = regexp.MustCompile(`(?m)^refused: (.*)`)

// packageVersion is for programs that do not tell their version.
func packageVersion(name string) []string {
	return []string{`(?m)^(?:\d+:)?(.+)$`, "dpkg-query", "--show", "--showformat=${Version}", name}
}

// certificate gives the arguments for the client's certificate, if it has one.
func (s session) certificate(cert, key string) []string {
	if s.client == "" {
		return nil
	}
	return []string{cert, s.client + ".crt", key, s.client + ".key"}
}

func (s session) address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// file gives the path of a new file of the test.
func file(t *testing.T, name, content string) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func runOpenSSL(t *testing.T, s session) string {
	args := append([]string{"openssl", "s_client", "-connect", s.address(), "-servername", "localhost", "-verify_hostname", "localhost",
		"-CAfile", "root.crt", "-verify_return_error", "-quiet", "-no_ign_eof", "-tls" + strings.Replace(s.tls, ".", "_", 1)},
		s.certificate("-cert", "-key")...)
	if s.alpn {
		args = append(args, "-alpn", alpn)
	}
	if s.twice {
		ticket := filepath.Join(t.TempDir(), "session")
		talk(t, command{args: append(args, "-sess_out", ticket)})
		args = append(args, "-sess_in", ticket)
	}
	return talk(t, command{args: args})
}

func runCurl(t *testing.T, s session) string {
	args := append([]string{"curl", "-sS", "--http1.1", "--cacert", "root.crt", "--tlsv" + s.tls, "--tls-max", s.tls,
		"--resolve", fmt.Sprintf("localhost:%d:127.0.0.1", s.port)}, s.certificate("--cert", "--key")...)
	url := fmt.Sprintf("https://localhost:%d/", s.port)
	args = append(args, url)
	if s.twice {
		args = append(args, url)
	}
	return talk(t, command{args: args})
}

func runGnuTLS(t *testing.T, s session) string {
	args := append([]string{"gnutls-cli", "127.0.0.1", "--port", fmt.Sprint(s.port), "--sni-hostname=localhost", "--verify-hostname=localhost",
		"--x509cafile=root.crt", "--priority=NORMAL:-VERS-ALL:+VERS-TLS" + s.tls}, s.certificate("--x509certfile", "--x509keyfile")...)
	if s.alpn {
		args = append(args, "--alpn="+alpn)
	}
	if s.twice {
		args = append(args, "--resume")
	}
	return talk(t, command{args: args})
}

func runNcat(t *testing.T, s session) string {
	args := append([]string{"ncat", "-v", "--ssl", "--ssl-verify", "--ssl-trustfile", "root.crt", "--ssl-servername", "localhost"},
		s.certificate("--ssl-cert", "--ssl-key")...)
	if s.alpn {
		args = append(args, "--ssl-alpn", alpn)
	}
	p := command{args: append(args, "127.0.0.1", fmt.Sprint(s.port)), env: []string{"OPENSSL_CONF=openssl-" + s.tls + ".cnf"}}.start(t)
	fmt.Fprint(p.stdin, "hello\n")
	p.says(answered, s.refused) // after a refusal it may wait for the end of its input
	return p.finish()
}

func runNSS(t *testing.T, s session) string {
	args := []string{"tstclnt", "-h", "127.0.0.1", "-p", fmt.Sprint(s.port), "-a", "localhost", "-d", nssDB(t), "-u",
		"-V", "tls" + s.tls + ":tls" + s.tls, "-A", file(t, "request", "GET / HTTP/1.0\r\n\r\n")}
	args = append(args, "-n", cmp.Or(s.client, "none")) // without -n it chooses one by itself
	if s.twice {
		args = append(args, "-L", "2")
	}
	return talk(t, command{args: args})
}

func runBoringSSL(t *testing.T, s session) string {
	args := append([]string{"bssl-tool", "client", "-connect", s.address(), "-server-name", "localhost", "-root-certs", "root.crt",
		"-min-version", "tls" + s.tls, "-max-version", "tls" + s.tls}, s.certificate("-cert", "-key")...)
	if s.alpn {
		args = append(args, "-alpn-protos", alpn)
	}
	if s.twice {
		ticket := filepath.Join(t.TempDir(), "session")
		talk(t, command{args: append(args, "-session-out", ticket)})
		args = append(args, "-session-in", ticket)
	}
	return talk(t, command{args: args})
}
