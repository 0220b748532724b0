package interop

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"net"
	"regexp"
	"slices"
	"testing"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
)

// server is a program that can serve our client.
type server struct {
	name    string // in the table
	binary  string
	version []string // pattern and command
	// start starts it with the certificate "server" and as the session says.
	start func(t *testing.T, s session) *program
	// answer is what it answers to ask, which is "hello\n" if it is empty.
	ask, answer string
	// errorText finds in its output, in the first group, what it says about a client that refuses
	// it; nil: it says nothing.
	errorText *regexp.Regexp
	// lacks and fresh are those of a client. A kind of refusal that it lacks is one that it does
	// not make.
	lacks, fresh map[string]string
	// unlike are the reasons that our client may hear in place of an alert, by kind.
	unlike map[string][]error
}

// errAnswered is for servers that refuse by an answer in their own protocol.
var errAnswered = errors.New("an answer of the server")

func TestServers(t *testing.T) {
	needs.Long(t)
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			who := subject{name: s.name, role: "server"}
			defer func() { who.missing(t) }()
			needs.Program(t, s.binary)
			who.version = version(t, s.version[0], s.version[1:]...)
			for _, tls := range versions {
				t.Run("TLS "+tls, func(t *testing.T) { s.check(t, who, tls) })
			}
		})
	}
}

// check runs all tests of one version: each server program twice, as it is and asking for client
// certificates.
func (s server) check(t *testing.T, who subject, tls string) {
	port := needs.Port(t)
	p := s.start(t, session{port: port, tls: tls, alpn: true})
	plain := target{server: s, t: t, p: p, port: port, tls: tls}
	plain.serves(who, "TLS", "")
	plain.refusedByUs(who)
	s.restarts(t, who, tls)

	if why := lookup(s.lacks, "mTLS", tls); why != "" {
		who.add("mTLS", tls, why)
		for _, refusal := range refusals {
			who.add(refusal.kind, tls, why)
		}
		return
	}
	port = needs.Port(t)
	p = s.start(t, session{port: port, tls: tls, alpn: true, mutual: true})
	mutual := target{server: s, t: t, p: p, port: port, tls: tls}
	mutual.serves(who, "mTLS", "client")
	for _, refusal := range refusals {
		if why := lookup(s.lacks, refusal.kind, tls); why != "" {
			who.add(refusal.kind, tls, why)
			continue
		}
		t.Run(refusal.kind, func(t *testing.T) {
			mutual.t = t
			who.add(refusal.kind, tls, mutual.refuses(refusal.kind, refusal.client))
		})
	}
}

// target is a running server program.
type target struct {
	server
	t    *testing.T
	p    *program
	port uint16
	tls  string
}

// dial connects our client.
func (s target) dial(o *owner, m gen.CertManager) gen.Alias {
	return connect(o, s.p, meta.TCPConnectionOptions{Port: s.port, CertManager: m})
}

// serves connects twice and measures what the server can do.
func (s target) serves(who subject, dimension, client string) {
	found := map[string]string{dimension: "yes"}
	passed := s.t.Run(dimension, func(t *testing.T) {
		m := clientManager(t, "root.crt", client)
		first := s.exchange(t, m)
		assert.Equal(t, "TLS "+s.tls, first.Peer.Version)
		assert.Equal(t, "CN=server", first.Peer.Subject)
		assert.True(t, first.Peer.Verified)
		assert.False(t, first.TLS.DidResume)
		if client != "" {
			return // whether it has verified us shows in refuses
		}
		found["ALPN"] = cmp.Or(lookup(s.lacks, "ALPN", s.tls), "yes")
		if found["ALPN"] == "yes" {
			assert.Equal(t, alpn, first.TLS.NegotiatedProtocol)
		}
		found["resumption"] = "yes"
		if second := s.exchange(t, m); !second.TLS.DidResume {
			found["resumption"] = s.fresh[s.tls]
			assert.NotEmpty(t, found["resumption"], "the second connection must resume the session of the first")
		}
	})
	if passed {
		for dimension, result := range found {
			who.add(dimension, s.tls, result)
		}
	}
}

// exchange asks and is answered on a connection of its own.
func (s target) exchange(t *testing.T, m manager) meta.MessageTCPConnect {
	o := spawn(t, false)
	id := s.dial(o, m)
	connected := expect[meta.MessageTCPConnect](o)
	o.do(func() { o.SendAlias(id, meta.MessageTCP{Data: []byte(cmp.Or(s.ask, "hello\n"))}) })
	var got []byte
	for !bytes.Contains(got, []byte(s.answer)) {
		got = append(got, expect[meta.MessageTCP](o).Data...)
	}
	o.do(func() { o.SendAlias(id, meta.MessageTCPClose{}) })
	o.ended()
	return connected
}

// ended gives the reason of the end of the connection, and what has come before.
func (o *owner) ended() (reason *meta.DisconnectError, got []byte) {
	for {
		switch m := o.next().(type) {
		case meta.MessageTCP:
			got = append(got, m.Data...)
		case meta.MessageTCPDisconnect:
			require.ErrorAs(o.t, m.Reason, &reason)
			return reason, got
		}
	}
}

// refuses lets the server refuse our client and gives what that hears.
func (s target) refuses(kind, client string) string {
	o := spawn(s.t, false)
	id := s.dial(o, clientManager(s.t, "root.crt", client))
	o.do(func() { o.SendAlias(id, meta.MessageTCP{Data: []byte(cmp.Or(s.ask, "hello\n"))}) })
	reason, got := o.ended()
	if slices.Contains(s.unlike[kind], errAnswered) {
		line, _, _ := bytes.Cut(got, []byte("\r\n"))
		assert.Regexp(s.t, "^HTTP/1.1 400 ", string(line))
		return string(line)
	}
	assert.NotContains(s.t, string(got), s.answer)
	if wanted := s.unlike[kind]; len(wanted) > 0 {
		assert.Contains(s.t, wanted, reason.Reason)
	} else {
		assert.ErrorIs(s.t, reason, meta.ErrRefused)
	}
	return heard(reason)
}

// heard is a reason without what differs from run to run: addresses, and how much of "hello" was
// sent.
func heard(reason *meta.DisconnectError) string {
	var alert *net.OpError
	if errors.As(reason.Cause, &alert) && alert.Op == "remote error" {
		return alert.Err.Error()
	}
	return reason.Reason.Error()
}

// refusedByUs lets our client refuse the server, whose root it does not know.
func (s target) refusedByUs(who subject) {
	s.t.Run("unknown root", func(t *testing.T) {
		o := spawn(t, false)
		s.dial(o, clientManager(t, "other.crt", ""))
		disconnect := expect[meta.MessageTCPDisconnect](o)
		assert.ErrorIs(t, disconnect.Reason, meta.ErrHandshake)
		var unknown x509.UnknownAuthorityError
		assert.ErrorAs(t, disconnect.Reason, &unknown)
		if s.errorText == nil {
			who.add("unknown root", s.tls, "(nothing)")
			return
		}
		assert.Eventually(t, func() bool { return s.errorText.MatchString(s.p.text()) }, testTimeout, tick, "it must say something")
		who.add("unknown root", s.tls, said(s.errorText, s.p.text()))
	})
}
