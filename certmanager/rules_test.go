package certmanager_test

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func TestRulesInHandshakes(t *testing.T) {
	ca := tlstest.NewCA(t)
	source := certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{URIs: []string{"spiffe://example.test/server"}}).Certificate()},
		ClientCAs:    ca.Pool(), RootCAs: ca.Pool(),
	}
	web := tlstest.Leaf{Usage: tlstest.ClientOnly, URIs: []string{"spiffe://example.test/web"}}
	job := tlstest.Leaf{Usage: tlstest.ClientOnly, URIs: []string{"spiffe://example.test/job"}}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		m := newManager(t, certmanager.Options{Source: source, ClientRule: certmanager.SPIFFEID("spiffe://example.test/web")})
		events := collect(m)
		allowed, refused := ca.MutualClientConfig(t, "localhost", web), ca.MutualClientConfig(t, "localhost", job)
		allowed.MaxVersion, refused.MaxVersion = version, version
		connect(t, m.ServerTLS(), allowed).ok(t)
		c := connect(t, m.ServerTLS(), refused).refused(t)
		require.ErrorIs(t, c.serverErr, certmanager.ErrNotAuthorized)
		require.NotContains(t, c.clientErr.Error(), "rule", "the peer learns the alert only")
		require.ErrorContains(t, c.clientErr, "bad certificate")
		eventually(t, "the event", func() bool { return len(events(certmanager.PeerRefused)) == 1 })
		assert.Equal(t, []string{"spiffe://example.test/job"}, events(certmanager.PeerRefused)[0].Peer.Names)
		assert.Equal(t, uint64(1), m.Status().Refused)

		m.SetClientRule(certmanager.TrustDomain("example.test"))
		connect(t, m.ServerTLS(), refused).ok(t)
	}
	t.Run("servers", func(t *testing.T) {
		m := newManager(t, certmanager.Options{Source: source, ServerRule: certmanager.SPIFFEID("spiffe://example.test/other")})
		c := connect(t, m.ServerTLS(), m.ClientTLS("localhost"))
		require.ErrorIs(t, c.clientErr, certmanager.ErrNotAuthorized)
		m = newManager(t, certmanager.Options{Source: source, ServerRule: certmanager.SPIFFEID("spiffe://example.test/server")})
		connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t)
	})
	t.Run("report only", func(t *testing.T) {
		m := newManager(t, certmanager.Options{Source: source, ClientRule: certmanager.SPIFFEID("spiffe://example.test/web"), ReportOnly: true})
		connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", job)).ok(t)
		assert.Equal(t, uint64(1), m.Status().Reported)
		assert.Zero(t, m.Status().Refused)
		connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).refused(t) // chains are enforced all the same
	})
	t.Run("optional certificate", func(t *testing.T) {
		m := newManager(t, certmanager.Options{Source: source, ClientAuth: tls.VerifyClientCertIfGiven, ClientRule: certmanager.SPIFFEID("spiffe://example.test/web")})
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
		table := func(*certmanager.Peer) error {
			if removed.Load() {
				return errors.New("it was removed")
			}
			return nil
		}
		m := newManager(t, certmanager.Options{ClientRule: certmanager.NewRule("table", table), ServerRule: certmanager.NewRule("table", table), Source: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool(),
		}})
		client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
		client.MaxVersion, client.ClientSessionCache = version, &tlstest.Replay{}
		open := track(m, connect(t, m.ServerTLS(), client).ok(t).server)
		called := track(m, connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t).client)
		require.True(t, connect(t, m.ServerTLS(), client).ok(t).server.DidResume)
		removed.Store(true)
		c := connect(t, m.ServerTLS(), client).refused(t)
		require.ErrorIs(t, c.serverErr, certmanager.ErrNotAuthorized)
		require.Zero(t, m.Status().DeclinedTickets, "the session was resumed, so that it was the rule")

		open.open(t, "nobody has said that the rule decides otherwise")
		m.SetClientRule(certmanager.NewRule("table", table))
		require.ErrorIs(t, open.evicted(t), certmanager.ErrNotAuthorized)
		require.ErrorIs(t, called.evicted(t), certmanager.ErrNotAuthorized)
	}
}
