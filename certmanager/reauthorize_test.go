package certmanager_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// The end that counts is that of the chains that hold now, not of those at the handshake.
func TestEndOfTheChainsThatAreLeft(t *testing.T) {
	for name, c := range map[string]struct {
		before, after []int // which roots
		hours         time.Duration
	}{
		"both":          {[]int{0, 1}, nil, 3},
		"one removed":   {[]int{0, 1}, []int{0}, 1},
		"one renewed":   {[]int{0}, []int{1}, 3},
		"one added":     {[]int{0}, []int{0, 1}, 3},
		"one cut short": {[]int{1}, []int{0}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, second, cert := renewedRoot(t, time.Hour, 3*time.Hour)
				pool := func(which []int) *x509.CertPool {
					p := x509.NewCertPool()
					for _, i := range which {
						p.AddCert([]*x509.Certificate{first, second}[i])
					}
					return p
				}
				ca := tlstest.NewCA(t)
				m := newManager(t, certmanager.Options{Source: certmanager.Static{
					Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: pool(c.before),
				}})
				client := ca.ClientConfig(t, "localhost")
				client.Certificates = []tls.Certificate{cert}
				conn := track(m, connectPipe(m.ServerTLS(), client).ok(t).server)
				if c.after != nil {
					m.SetClientCAs(pool(c.after))
				}
				time.Sleep(c.hours*time.Hour - 2*time.Second)
				synctest.Wait()
				conn.open(t, "a chain holds")
				time.Sleep(4 * time.Second)
				synctest.Wait()
				require.Error(t, conn.evicted(t))
			})
		})
	}
}

// remembered is a source that a test edits.
type remembered struct {
	static certmanager.Static
}

func (r *remembered) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	return r.static.Load(ctx, nil)
}

func (r *remembered) Watch(context.Context, func(), func(certmanager.Event)) error { return nil }

// A certificate of ours that ended is bad enough: it does not hold back a revocation, nor
// the renewal of another.
func TestExpiredCertificateInServiceHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		ends := ca.Issue(t, tlstest.Leaf{Names: []string{"ends.test"}, NotAfter: time.Now().Add(time.Hour)})
		source := &remembered{static: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate(), ends.Certificate()}, ClientCAs: ca.Pool(),
			CRLIssuers: []*x509.Certificate{ca.Certificate()},
		}}
		m := newManager(t, certmanager.Options{PollInterval: 240 * time.Hour, Source: source})
		pair := ca.Issue(t, tlstest.Leaf{})
		client := ca.ClientConfig(t, "localhost")
		client.Certificates = []tls.Certificate{pair.Certificate()}
		connectPipe(m.ServerTLS(), client).ok(t)
		time.Sleep(2 * time.Hour)
		source.static.CRLs = []*x509.RevocationList{parseCRL(t, ca.CRL(t, pair.Leaf))}
		require.NoError(t, m.Reload(t.Context()))
		require.ErrorIs(t, connectPipe(m.ServerTLS(), client).serverErr, certmanager.ErrRevoked)

		source.static.Certificates[1] = ca.Issue(t, tlstest.Leaf{}.Expired()).Certificate()
		require.ErrorIs(t, m.Reload(t.Context()), certmanager.ErrExpired, "a new one has to hold")
	})
}

// A handshake that began before a CA was removed ends after it: the peer is judged by what
// is in service at its end.
func TestTrustChangesDuringHandshake(t *testing.T) {
	ca := tlstest.NewCA(t)
	for _, version := range versions {
		m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
		begun, err := m.ServerTLS().GetConfigForClient(&tls.ClientHelloInfo{})
		require.NoError(t, err)
		client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
		client.MaxVersion = version
		client.ClientSessionCache = &tlstest.Replay{}
		m.SetClientRule(certmanager.DNSName("localhost"))
		connect(t, begun, client).ok(t)
		require.False(t, connect(t, m.ServerTLS(), client).ok(t).server.DidResume, "what was verified then is not what is asked for now")
		client.ClientSessionCache = nil
		m.SetClientCAs(tlstest.NewCA(t).Pool())
		require.ErrorIs(t, connect(t, begun, client).serverErr, certmanager.ErrUntrusted)
	}
}

// Trust that moves from an intermediate to its root, which has revoked the intermediate, does not
// stop at the chains that are known: they end at the intermediate, which the root still verifies.
func TestKnownChainsAreFollowedToTheRoot(t *testing.T) {
	ca := tlstest.NewCA(t)
	intermediate := ca.Intermediate(t)
	below := x509.NewCertPool()
	below.AddCert(intermediate.Certificate())
	source := &remembered{static: certmanager.Static{
		Certificates: []tls.Certificate{intermediate.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: below, RootCAs: below,
	}}
	m := newManager(t, certmanager.Options{PollInterval: time.Hour, Source: source})
	server, client := m.ServerTLS(), m.ClientTLS("localhost")
	got := connect(t, server, client).ok(t)
	theirs, ours := track(m, got.server), track(m, got.client)

	source.static.ClientCAs, source.static.RootCAs = ca.Pool(), ca.Pool()
	require.NoError(t, m.Reload(t.Context()))
	connect(t, server, client).ok(t)
	theirs.open(t, "the root is above it")
	ours.open(t, "the same")

	source.static.CRLs = []*x509.RevocationList{parseCRL(t, ca.CRL(t, intermediate.Certificate()))}
	source.static.CRLIssuers = []*x509.Certificate{ca.Certificate()}
	require.NoError(t, m.Reload(t.Context()))
	require.ErrorIs(t, theirs.evicted(t), certmanager.ErrRevoked)
	require.ErrorIs(t, ours.evicted(t), certmanager.ErrRevoked)
	m.SetClientAuth(tls.NoClientCert) // so that it is the client who refuses
	require.ErrorIs(t, connect(t, server, client).refused(t).clientErr, certmanager.ErrRevoked)
}

// A connection that may outlive its certificate is judged as in the last moment of that: its CA can
// be renewed and removed.
func TestKeptConnectionsFollowTheirCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, cert := renewedRoot(t, time.Hour, 200*time.Hour)
		pool := func(root *x509.Certificate) *x509.CertPool {
			p := x509.NewCertPool()
			p.AddCert(root)
			return p
		}
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{KeepExpiredConnections: true, Source: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: pool(first),
		}})
		client := ca.ClientConfig(t, "localhost")
		client.Certificates = []tls.Certificate{cert}
		c := track(m, connectPipe(m.ServerTLS(), client).ok(t).server)
		for range 2 { // the second time the certificate has ended too
			time.Sleep(60 * time.Hour)
			m.SetClientCAs(pool(second))
			m.SetClientRule(certmanager.Rule{})
			time.Sleep(time.Minute)
			c.open(t, "KeepExpiredConnections")
		}
		m.SetClientCAs(ca.Pool())
		require.ErrorIs(t, c.evicted(t), certmanager.ErrUntrusted)
	})
}
