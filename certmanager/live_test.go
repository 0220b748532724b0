package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func TestChangesOfTrustReachOpenConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
		both := ca.Pool()
		both.AddCert(other.Certificate())
		m := newManager(t, certmanager.Options{ClientAuth: tls.VerifyClientCertIfGiven, Source: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: both, RootCAs: both,
		}})
		events := collect(m)
		open := func(client *tls.Config) *tracked { return track(m, connectPipe(m.ServerTLS(), client).ok(t).server) }
		stays := open(ca.MutualClientConfig(t, "localhost", tlstest.Leaf{Names: []string{"stays.test"}}))
		leaves := tlstest.Leaf{Names: []string{"leaves.test"}}
		otherConfig := ca.ClientConfig(t, "localhost")
		otherConfig.Certificates = []tls.Certificate{other.Issue(t, leaves).Certificate()}
		fromOther := open(otherConfig)
		unruly := open(ca.MutualClientConfig(t, "localhost", tlstest.Leaf{Names: []string{"unruly.test"}}))
		anonymous := open(ca.ClientConfig(t, "localhost"))
		released := open(otherConfig)
		released.release()
		released.release()
		assert.Equal(t, 4, m.Status().Connections)

		m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
		synctest.Wait()
		impact, err := m.DryRun(certmanager.Static{ClientCAs: ca.Pool(), RootCAs: ca.Pool()})
		require.NoError(t, err)
		require.Len(t, impact, 1)
		assert.Equal(t, []string{"leaves.test"}, impact[0].Names)
		assert.Equal(t, "192.0.2.1:5", impact[0].Remote)
		_, err = m.DryRun(certmanager.Static{RootCAs: ca.Pool()})
		require.ErrorContains(t, err, "client CA bundle")
		fromOther.open(t, "a question changes nothing")

		m.SetClientCAs(ca.Pool())
		require.ErrorIs(t, fromOther.evicted(t), certmanager.ErrUntrusted)
		m.SetClientRule(certmanager.DNSName("stays.test"))
		require.ErrorIs(t, unruly.evicted(t), certmanager.ErrNotAuthorized)
		anonymous.open(t, "a rule is about certificates")
		m.SetClientAuth(tls.RequireAndVerifyClientCert)
		require.ErrorIs(t, anonymous.evicted(t), certmanager.ErrUntrusted)

		impact, err = m.DryRun(certmanager.Static{ClientCAs: other.Pool()})
		require.NoError(t, err)
		dependent := func(p certmanager.PeerInfo) bool { return slices.Contains(p.Names, "stays.test") }
		assert.True(t, slices.ContainsFunc(impact, dependent), "the candidate counts, not what SetClientCAs has set")

		time.Sleep(time.Minute)
		stays.open(t, "it holds")
		released.open(t, "it was released")
		assert.Empty(t, fromOther.reasons, "once is enough")
		assert.Equal(t, uint64(3), m.Status().Evicted)
		require.Len(t, events(certmanager.PeerEvicted), 3)
		assert.Equal(t, "192.0.2.1:5", events(certmanager.PeerEvicted)[0].Peer.Remote)
	})
}

func TestRevokedPeersAreEvicted(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	serverCert, serverKey := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	write(t, dir, "ca.crt", ca.PEM())
	m := newManager(t, certmanager.Options{Source: certmanager.Files{
		Cert: serverCert, Key: serverKey, ClientCAs: filepath.Join(dir, "ca.crt"), RootCAs: filepath.Join(dir, "ca.crt"),
		CRLs: write(t, dir, "crl", ca.CRL(t)),
	}})
	pair := ca.Issue(t, tlstest.Leaf{})
	config := ca.ClientConfig(t, "localhost")
	config.Certificates = []tls.Certificate{pair.Certificate()}
	client := track(m, connect(t, m.ServerTLS(), config).ok(t).server)
	good := track(m, connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server)
	// The other direction: this program as a client, whose config verifies by itself.
	server := track(m, connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t).client)

	write(t, dir, "crl", ca.CRL(t, pair.Leaf)) // and the files do the rest
	require.ErrorIs(t, client.evicted(t), certmanager.ErrRevoked)
	write(t, dir, "crl", ca.CRL(t, m.GetCertificate().Leaf))
	require.ErrorIs(t, server.evicted(t), certmanager.ErrRevoked)
	good.open(t, "it holds")
}

// A CA that is made anew with the same key ends no connection: the chain is verified
// again before a peer is given up.
func TestRenewedCA(t *testing.T) {
	ca := tlstest.NewCA(t)
	intermediate := ca.Intermediate(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	config := ca.ClientConfig(t, "localhost")
	config.Certificates = []tls.Certificate{intermediate.Issue(t, tlstest.Leaf{}).Certificate()}
	c := track(m, connect(t, m.ServerTLS(), config).ok(t).server)
	// Trust moves from the root to the intermediate: no known chain ends there.
	pool := x509.NewCertPool()
	pool.AddCert(intermediate.Certificate())
	m.SetClientCAs(pool)
	assert.Zero(t, m.Status().Evicted)
	m.SetClientCAs(tlstest.NewCA(t).Pool())
	require.ErrorIs(t, c.evicted(t), certmanager.ErrUntrusted)
}

// Trust that changes between handshake and Track is not missed.
func TestTrackAfterChange(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	state := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
	m.SetClientCAs(tlstest.NewCA(t).Pool())
	require.ErrorIs(t, track(m, state).evicted(t), certmanager.ErrUntrusted)
}

// Nor is one between the judgement of a new connection and its listing.
func TestTrackDuringChange(t *testing.T) {
	ca := tlstest.NewCA(t)
	var armed atomic.Bool
	judging, blocked := make(chan struct{}), make(chan struct{})
	rule := certmanager.NewRule("slow", func(*certmanager.Peer) error {
		if armed.CompareAndSwap(true, false) {
			close(judging)
			<-blocked
		}
		return nil
	})
	m := newManager(t, certmanager.Options{ClientRule: rule, Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	state := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
	armed.Store(true)
	conns := make(chan *tracked)
	go func() { conns <- track(m, state) }()
	<-judging
	m.SetClientCAs(tlstest.NewCA(t).Pool())
	close(blocked)
	require.ErrorIs(t, (<-conns).evicted(t), certmanager.ErrUntrusted)
}

// Whatever the order of Track and the change, the peer ends up evicted, once.
func TestTrackRacesWithChange(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	state := connect(t, m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server
	none := tlstest.NewCA(t).Pool()
	for range 50 {
		m.SetClientCAs(nil)
		var conns [8]*tracked
		var wait sync.WaitGroup
		for i := range conns {
			wait.Go(func() { conns[i] = track(m, state) })
		}
		wait.Go(func() { m.SetClientCAs(none) })
		wait.Wait()
		for _, c := range conns {
			require.ErrorIs(t, c.evicted(t), certmanager.ErrUntrusted)
			c.release()
			require.Empty(t, c.reasons)
		}
	}
	assert.Zero(t, m.Status().Connections)
}

func TestEvictedWhenTheCertificateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		hour := tlstest.Leaf{NotAfter: time.Now().Add(time.Hour)}
		source := certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, hour).Certificate()}, ClientCAs: ca.Pool(), RootCAs: ca.Pool()}
		m, lenient := newManager(t, certmanager.Options{Source: source}), newManager(t, certmanager.Options{Source: source, KeepExpiredConnections: true})
		got := connectPipe(m.ServerTLS(), m.ClientTLS("localhost")).ok(t)
		client, server := track(m, got.server), track(m, got.client)
		kept := track(lenient, got.server)
		time.Sleep(time.Hour - time.Second)
		client.open(t, "a second is left")
		time.Sleep(3 * time.Second)
		require.ErrorIs(t, client.evicted(t), certmanager.ErrExpired)
		require.ErrorIs(t, server.evicted(t), certmanager.ErrExpired)
		kept.open(t, "KeepExpiredConnections")
		lenient.SetClientRule(certmanager.DNSName("localhost"))
		synctest.Wait()
		kept.open(t, "a change of trust is no reason either")
		lenient.SetClientRule(certmanager.DNSName("other.test"))
		require.ErrorIs(t, kept.evicted(t), certmanager.ErrNotAuthorized)
	})
}

func TestRecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
		var old []*tracked
		for range 20 {
			old = append(old, track(m, tls.ConnectionState{}))
		}
		m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
		fresh := track(m, tls.ConnectionState{})
		start := time.Now()
		require.Equal(t, 20, m.Recycle(m.Status().Generation, time.Minute))
		var last time.Duration
		for _, c := range old {
			require.ErrorIs(t, func() error {
				select {
				case reason := <-c.reasons:
					return reason
				case <-time.After(2 * time.Minute):
					return nil
				}
			}(), certmanager.ErrRecycled)
			last = max(last, time.Since(start))
		}
		assert.LessOrEqual(t, last, time.Minute)
		assert.Greater(t, last, 10*time.Second, "spread over the time")
		fresh.open(t, "it is of the new generation")
	})
}

// A connection whose handshake ran while another set came into service may have met the one before.
func TestRecycleCountsFromBeforeTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
		var state tls.ConnectionState
		evicted := make(chan error, 3)
		evict := func(reason error) { evicted <- reason }
		first, late := m.Accepting(), m.Accepting()
		m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
		defer first(&state, nil, evict)()
		defer m.Track(&state, nil, evict)() // it is of now, for all that is known
		require.Equal(t, 1, m.Recycle(m.Status().Generation, time.Minute))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.ErrorIs(t, <-evicted, certmanager.ErrRecycled)

		defer late(&state, nil, evict)()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.ErrorIs(t, <-evicted, certmanager.ErrRecycled, "it came after the call, and began before")
		assert.Empty(t, evicted)

		// What begins before a generation that does not exist yet is not known to be old.
		m.Recycle(m.Status().Generation+1, time.Minute)
		require.ErrorIs(t, <-evicted, certmanager.ErrRecycled)
		defer m.Track(&state, nil, evict)()
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Empty(t, evicted)
	})
}

func TestCloseEndsEvictions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
		c := track(m, tls.ConnectionState{})
		m.Recycle(100, time.Hour)
		require.NoError(t, m.Close())
		time.Sleep(2 * time.Hour)
		c.open(t, "closed")
	})
}

func TestFreshCRLsAndOpenConnections(t *testing.T) {
	for _, keep := range []bool{false, true} { // dates of certificates are another matter
		synctest.Test(t, func(t *testing.T) {
			ca := tlstest.NewCA(t)
			list, err := ca.GenerateCRL(tlstest.CRL{NextUpdate: time.Now().Add(time.Hour)})
			require.NoError(t, err)
			m := newManager(t, certmanager.Options{RequireFreshCRLs: true, KeepExpiredConnections: keep, Source: certmanager.Static{
				Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
				CRLs: []*x509.RevocationList{parseCRL(t, list)}, CRLIssuers: []*x509.Certificate{ca.Certificate()},
			}})
			c := track(m, connectPipe(m.ServerTLS(), ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})).ok(t).server)
			time.Sleep(59 * time.Minute)
			c.open(t, "the list is current")
			time.Sleep(2 * time.Minute)
			require.ErrorIs(t, c.evicted(t), certmanager.ErrCRLOutOfDate)
		})
	}
}

// Where clients are no longer asked for a certificate, the end of one ends no connection, and
// is not looked at again and again.
func TestExpiryWhereClientsAreNoLongerVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		m := newManager(t, certmanager.Options{PollInterval: 24 * time.Hour, Source: certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
		}})
		client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{NotAfter: time.Now().Add(time.Hour)})
		c := track(m, connectPipe(m.ServerTLS(), client).ok(t).server)
		m.SetClientAuth(tls.NoClientCert)
		time.Sleep(time.Hour + time.Minute) // does not pass while a timer fires again and again
		c.open(t, "its certificate does not count")
		m.SetClientAuth(tls.RequireAndVerifyClientCert)
		require.ErrorIs(t, c.evicted(t), certmanager.ErrExpired)
	})
}
