package certmanager

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/tlstest"
)

func TestRules(t *testing.T) {
	ca := tlstest.NewCA(t)
	web := &Peer{Certificate: ca.Issue(t, tlstest.Leaf{Names: []string{"web.example.test"}, URIs: []string{"spiffe://example.test/web"}}).Leaf}
	two := &Peer{Certificate: ca.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://example.test/a", "spiffe://example.test/b"}}).Leaf}
	bare := &Peer{Certificate: ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: "bare"}).Leaf}
	for _, c := range []struct {
		rule Rule
		peer *Peer
		says string // empty: allowed
	}{
		{Rule{}, bare, ""},
		{DNSName("web.example.test"), web, ""},
		{DNSName("other.test", "WEB.example.test."), web, ""},
		{DNSName("*.example.test"), web, ""},
		{DNSName("*.test"), web, "nearest match *.test"},
		{DNSName("*"), web, "whole first label"},
		{DNSName("wex.example.test", "b.c"), web, "its DNS name is web.example.test, the nearest match wex.example.test"},
		{DNSName("b.c", "wex.example.test", "web.example.org"), web, "the nearest match wex.example.test"},
		{DNSName("a.test"), bare, "carries no DNS name"},
		{SPIFFEID("spiffe://example.test/web"), web, ""},
		{SPIFFEID("spiffe://example.test/we"), web, "the nearest match spiffe://example.test/we"},
		{SPIFFEID("spiffe://example.test/a"), two, "carries no SPIFFE ID"},
		{TrustDomain("example.test"), web, ""},
		{TrustDomain("test"), web, "its SPIFFE trust domain is example.test, the nearest match test"},
		{TrustDomain("example.test"), bare, "carries no SPIFFE trust domain"},
		{PublicKeyPin(PinOf(web.Certificate)), web, ""},
		{PublicKeyPin("sha256/" + PinOf(web.Certificate)), web, ""},
		{PublicKeyPin(PinOf(two.Certificate)), web, "nearest match " + PinOf(two.Certificate)},
		{AllOf(DNSName("web.example.test"), TrustDomain("example.test"), Rule{}), web, ""},
		{AllOf(DNSName("web.example.test"), TrustDomain("other.test")), web, "trust domain other.test"},
		{AllOf(), web, "it has no rule"},
		{AnyOf(DNSName("x"), TrustDomain("example.test")), web, ""},
		{AnyOf(DNSName("x"), Rule{}), web, "is the zero Rule"},
		{AnyOf(DNSName("x"), DNSName("y")), web, "none holds"},
		{AnyOf(), web, "it has no rule"},
		{NewRule("mine", func(*Peer) error { return errors.New("Tuesday") }), web, "rule mine refuses"},
	} {
		err := c.rule.allows(c.peer)
		if c.says == "" {
			assert.NoError(t, err, "%s", c.rule)
			continue
		}
		assert.ErrorIs(t, err, ErrNotAuthorized, "%s", c.rule)
		assert.ErrorContains(t, err, c.says)
		assert.ErrorContains(t, err, c.rule.String())
		assert.ErrorContains(t, err, c.peer.String())
	}
}

func TestRulesInHandshakes(t *testing.T) {
	ca := tlstest.NewCA(t)
	source := Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://example.test/server"}}).Certificate()},
		ClientCAs:    ca.Pool(), RootCAs: ca.Pool(),
	}
	web := tlstest.Leaf{Usage: tlstest.ClientOnly, URIs: []string{"spiffe://example.test/web"}}
	job := tlstest.Leaf{Usage: tlstest.ClientOnly, URIs: []string{"spiffe://example.test/job"}}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		m := newManager(t, Options{Source: source, ClientRule: SPIFFEID("spiffe://example.test/web")})
		events := collect(m)
		allowed, refused := ca.MutualClientConfig(t, "localhost", web), ca.MutualClientConfig(t, "localhost", job)
		allowed.MaxVersion, refused.MaxVersion = version, version
		connect(t, m.ServerTLS(), allowed).ok(t)
		c := connect(t, m.ServerTLS(), refused).refused(t)
		require.ErrorIs(t, c.serverErr, ErrNotAuthorized)
		require.NotContains(t, c.clientErr.Error(), "rule", "the peer learns the alert only")
		require.ErrorContains(t, c.clientErr, "bad certificate")
		eventually(t, "the event", func() bool { return len(events(PeerRefused)) == 1 })
		assert.Equal(t, []string{"spiffe://example.test/job"}, events(PeerRefused)[0].Peer.Names)
		assert.Equal(t, uint64(1), m.Status().Refused)

		m.SetClientRule(TrustDomain("example.test"))
		connect(t, m.ServerTLS(), refused).ok(t)
	}
	t.Run("servers", func(t *testing.T) {
		m := newManager(t, Options{Source: source, ServerRule: SPIFFEID("spiffe://example.test/other")})
		c := connect(t, m.ServerTLS(), m.ClientTLS("localhost"))
		require.ErrorIs(t, c.clientErr, ErrNotAuthorized)
		m = newManager(t, Options{Source: source, ServerRule: SPIFFEID("spiffe://example.test/server")})
		connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t)
	})
	t.Run("report only", func(t *testing.T) {
		m := newManager(t, Options{Source: source, ClientRule: SPIFFEID("spiffe://example.test/web"), ReportOnly: true})
		connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", job)).ok(t)
		assert.Equal(t, uint64(1), m.Status().Reported)
		assert.Zero(t, m.Status().Refused)
		connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).refused(t) // chains are enforced all the same
	})
	t.Run("optional certificate", func(t *testing.T) {
		m := newManager(t, Options{Source: source, ClientAuth: tls.VerifyClientCertIfGiven, ClientRule: SPIFFEID("spiffe://example.test/web")})
		connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).ok(t)
		connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", job)).refused(t)
	})
}

// A rule is asked in resumed handshakes too, which skip everything else, and for open connections
// when it is set again: it may ask a table that was changed.
func TestRuleThatChangesItsMind(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, version := range versions {
		var removed atomic.Bool
		table := func(*Peer) error {
			if removed.Load() {
				return errors.New("it was removed")
			}
			return nil
		}
		m := newManager(t, Options{ClientRule: NewRule("table", table), ServerRule: NewRule("table", table), Source: Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
		}})
		client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
		client.MaxVersion, client.ClientSessionCache = version, &tlstest.Replay{}
		open := track(m, connect(t, m.ServerTLS(), client).ok(t).server)
		called := track(m, connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t).client)
		require.True(t, connect(t, m.ServerTLS(), client).ok(t).server.DidResume)
		removed.Store(true)
		c := connect(t, m.ServerTLS(), client).refused(t)
		require.ErrorIs(t, c.serverErr, ErrNotAuthorized)
		require.Zero(t, m.Status().DeclinedTickets, "the session was resumed, so that it was the rule")

		open.open(t, "nobody has said that the rule decides otherwise")
		m.SetClientRule(NewRule("table", table))
		require.ErrorIs(t, open.evicted(t), ErrNotAuthorized)
		require.ErrorIs(t, called.evicted(t), ErrNotAuthorized)
	}
}
