package interop

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
)

// session is what a program is to do.
type session struct {
	port   uint16
	tls    string // version
	client string // whose certificate a client presents; empty: none
	twice  bool   // connect twice, and resume the session
	mutual bool   // as a server: ask for a client certificate
	alpn   bool

	refused func() bool // our server has refused the client
}

// client is a program that can connect to our server.
type client struct {
	name    string // in the table
	binary  string
	version []string // pattern and command
	// run does what the session says and gives all that the program has said.
	run func(t *testing.T, s session) string
	// errorText finds in it, in its group, how the program tells of its refusal.
	errorText *regexp.Regexp
	// lacks says why a program can't do something, by dimension, with " 1.2" or " 1.3" behind it or
	// not. It is not tried.
	lacks map[string]string
	// fresh says why a program does not resume its session, by version. It is tried.
	fresh map[string]string
	// mumbles are patterns of what a program says where it does not tell the alert, by kind with
	// the version or by version.
	mumbles map[string]string
}

// lookup finds what stands for a dimension in one version of TLS.
func lookup(m map[string]string, dimension, tls string) string {
	for _, key := range []string{dimension + " " + tls, dimension, tls} {
		if text, ok := m[key]; ok {
			return text
		}
	}
	return ""
}

func TestClients(t *testing.T) {
	needs.Long(t)
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			who := subject{name: c.name, role: "client"}
			defer func() { who.missing(t) }()
			needs.Program(t, c.binary)
			who.version = version(t, c.version[0], c.version[1:]...)
			for _, tls := range versions {
				t.Run("TLS "+tls, func(t *testing.T) {
					c.check(t, who, tls, "TLS", session{})
					c.check(t, who, tls, "mTLS", session{client: "client"})
					c.check(t, who, tls, "ALPN", session{alpn: true})
					c.check(t, who, tls, "resumption", session{client: "client", twice: true})
					for _, refusal := range refusals {
						t.Run(refusal.kind, func(t *testing.T) { c.refused(t, who, tls, refusal.kind, refusal.client) })
					}
				})
			}
		})
	}
}

// check lets the program connect and looks at it from our side.
func (c client) check(t *testing.T, who subject, tls, dimension string, s session) {
	if why := lookup(c.lacks, dimension, tls); why != "" {
		who.add(dimension, tls, why)
		return
	}
	result := "yes"
	passed := t.Run(dimension, func(t *testing.T) {
		server := listen(t, serverManager(t, s.client != ""))
		s.port, s.tls, s.refused = server.port, tls, func() bool { return false }
		assert.Regexp(t, answered, c.run(t, s))
		connect := server.connected()
		if s.twice {
			assert.False(t, connect.TLS.DidResume)
			connect = server.connected()
			if !connect.TLS.DidResume && c.fresh[tls] != "" {
				result = c.fresh[tls]
			} else {
				assert.True(t, connect.TLS.DidResume, "the second connection must resume the session of the first")
			}
		}
		assert.Equal(t, "TLS "+tls, connect.Peer.Version)
		assert.Equal(t, s.client != "", connect.Peer.Verified)
		if s.client != "" {
			assert.Equal(t, "CN="+s.client, connect.Peer.Subject)
		}
		if s.alpn {
			assert.Equal(t, alpn, connect.TLS.NegotiatedProtocol)
		}
	})
	if passed {
		who.add(dimension, tls, result)
	}
}

// alerts are what our server says at each refusal, and how programs put it, in lower case and with
// spaces for underscores.
func alerts(kind, tls string) []string {
	switch {
	case kind == "no certificate" && tls == "1.3":
		return []string{"certificate required", "certificate is required"}
	case kind == "no certificate":
		return []string{"handshake failure", "handshake failed"}
	case kind == "wrong CA":
		return []string{"unknown ca", "ca is unknown"}
	case kind == "expired":
		return []string{"certificate expired", "expired cert", "certificate is expired"}
	default:
		return []string{"bad certificate", "bad cert", "certificate is bad"}
	}
}

func (c client) refused(t *testing.T, who subject, tls, kind, name string) {
	server := listen(t, serverManager(t, true))
	counted := func() bool { return server.inspect()["handshake failures"] != "0" }
	output := c.run(t, session{port: server.port, tls: tls, client: name, refused: counted})
	assert.NotRegexp(t, answered, output)
	errorText := said(c.errorText, output)
	if !tells(errorText, kind, tls) {
		mumble := lookup(c.mumbles, kind, tls)
		require.NotEmpty(t, mumble, "it does not tell the alert, but: %q\n%s", errorText, output)
		require.Regexp(t, mumble, cmp.Or(errorText, "(nothing)"))
	}
	require.Eventually(t, counted, testTimeout, tick)
	select {
	case message := <-server.mail:
		t.Fatalf("an actor has heard of a refused client: %+v", message)
	default:
	}
	who.add(kind, tls, cmp.Or(errorText, "(nothing)"))
}

// tells says whether a errorText names the alert of a refusal.
func tells(errorText, kind, tls string) bool {
	errorText = strings.ToLower(strings.ReplaceAll(errorText, "_", " "))
	for _, alert := range alerts(kind, tls) {
		if strings.Contains(errorText, alert) {
			return true
		}
	}
	return false
}

// talk runs a program that carries its input to the server and the answer to its output.
func talk(t *testing.T, c command) string {
	t.Helper()
	p := c.start(t)
	fmt.Fprint(p.stdin, "hello\n")
	p.says(answered)
	return p.finish()
}

var answered = regexp.MustCompile(`hello\n`)
