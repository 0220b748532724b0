package certmanager_test

import (
	"crypto/tls"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// A session is resumed for as long as trust stays what it was, and not a moment longer.
func TestResumptionFollowsTrust(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	served := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost", "b.test"}})
	both := ca.Pool()
	both.AddCert(other.Certificate())
	for name, c := range map[string]struct {
		change  func(*certmanager.Manager)
		edit    func(*tls.Config)
		resumes bool
	}{
		"nothing":      {nil, nil, true},
		"equal pool":   {func(m *certmanager.Manager) { m.SetClientCAs(both.Clone()) }, nil, false}, // its constraints cannot be compared
		"certificate":  {func(m *certmanager.Manager) { m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate()) }, nil, true},
		"CA removed":   {func(m *certmanager.Manager) { m.SetClientCAs(ca.Pool()) }, nil, false},
		"client rule":  {func(m *certmanager.Manager) { m.SetClientRule(certmanager.DNSName("localhost")) }, nil, false},
		"client auth":  {func(m *certmanager.Manager) { m.SetClientAuth(tls.VerifyClientCertIfGiven) }, nil, false},
		"another name": {nil, func(c *tls.Config) { c.ServerName = "b.test" }, false},
		"no name":      {nil, func(c *tls.Config) { c.ServerName = "" }, false},
	} {
		for _, version := range versions {
			t.Run(fmt.Sprintf("%s %x", name, version), func(t *testing.T) {
				m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{served.Certificate()}, ClientCAs: both}})
				server := m.ServerTLS()
				client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
				client.MaxVersion, client.ClientSessionCache, client.InsecureSkipVerify = version, &tlstest.Replay{}, true
				require.False(t, connect(t, server, client).ok(t).server.DidResume)
				require.True(t, connect(t, server, client).ok(t).server.DidResume)
				require.True(t, connect(t, m.ServerTLS(), client).ok(t).server.DidResume, "another server of the same manager")
				if c.change != nil {
					c.change(m)
				}
				if c.edit != nil {
					c.edit(client)
				}
				got := connect(t, server, client).ok(t) // never a failure: a full handshake follows
				assert.Equal(t, c.resumes, got.server.DidResume)
				assert.NotEmpty(t, got.server.PeerCertificates)
			})
		}
	}
}

// A ticket of a removed peer does not let it in, and does not keep it out once it has
// a certificate that holds.
func TestTicketOfRemovedPeer(t *testing.T) {
	ca, next := tlstest.NewCA(t), tlstest.NewCA(t)
	for _, version := range versions {
		m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
		client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
		client.MaxVersion, client.ClientSessionCache = version, &tlstest.Replay{}
		connect(t, m.ServerTLS(), client).ok(t)
		require.True(t, connect(t, m.ServerTLS(), client).ok(t).server.DidResume)
		m.SetClientCAs(next.Pool())
		connect(t, m.ServerTLS(), client).refused(t)
		cert := next.Issue(t, tlstest.Leaf{}).Certificate()
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		require.False(t, connect(t, m.ServerTLS(), client).ok(t).server.DidResume)
	}
}

func TestRevocationEndsSessions(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key, ClientCAs: write(t, dir, "ca.crt", ca.PEM()), CRLs: write(t, dir, "crl", ca.CRL(t))}})
	pair := ca.Issue(t, tlstest.Leaf{})
	client := ca.ClientConfig(t, "localhost")
	client.Certificates, client.ClientSessionCache = []tls.Certificate{pair.Certificate()}, &tlstest.Replay{}
	connect(t, m.ServerTLS(), client).ok(t)
	write(t, dir, "crl", ca.CRL(t)) // a new list of the same entries ends no session
	require.NoError(t, m.Reload(t.Context()))
	require.True(t, connect(t, m.ServerTLS(), client).ok(t).server.DidResume)
	write(t, dir, "crl", ca.CRL(t, pair.Leaf))
	require.NoError(t, m.Reload(t.Context()))
	c := connect(t, m.ServerTLS(), client).refused(t)
	require.ErrorIs(t, c.serverErr, certmanager.ErrRevoked)
	require.NotZero(t, m.Status().DeclinedTickets)
}

// The age counts from the first authentication, however often the session was
// resumed since and the ticket renewed.
func TestMaxSessionAge(t *testing.T) {
	for _, version := range versions {
		synctest.Test(t, func(t *testing.T) {
			ca := tlstest.NewCA(t)
			year := tlstest.Leaf{NotAfter: time.Now().AddDate(0, 0, 20)}
			m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, year).Certificate()}, ClientCAs: ca.Pool()}})
			client := ca.MutualClientConfig(t, "localhost", year)
			client.MaxVersion, client.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
			server := m.ServerTLS()
			var resumed []bool
			for range 6 {
				resumed = append(resumed, connectPipe(server, client).ok(t).server.DidResume)
				time.Sleep(7 * time.Hour)
			}
			assert.Equal(t, []bool{false, true, true, true, false, true}, resumed)
		})
	}
}

// Two clients resume at the same time: each ticket keeps its own beginning.
func TestSessionAgesAreNotMixedUp(t *testing.T) {
	for _, limit := range []struct{ server, client uint16 }{{client: tls.VersionTLS12}, {client: tls.VersionTLS13}, {server: tls.VersionTLS12}} {
		synctest.Test(t, func(t *testing.T) {
			ca := tlstest.NewCA(t)
			days := tlstest.Leaf{NotAfter: time.Now().AddDate(0, 0, 20)}
			m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, days)), PollInterval: time.Hour})
			server := m.ServerTLS()
			server.MaxVersion = limit.server
			configFor, waiting := server.GetConfigForClient, make(chan chan struct{}, 1)
			server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				config, err := configFor(hello)
				if blocked := <-waiting; blocked != nil { // once the old session was looked at
					verify := config.VerifyConnection
					config = config.Clone()
					config.VerifyConnection = func(state tls.ConnectionState) error {
						blocked <- struct{}{}
						<-blocked
						return verify(state)
					}
				}
				return config, err
			}
			client := func() *tls.Config {
				config := ca.ClientConfig(t, "localhost")
				config.MaxVersion, config.ClientSessionCache = limit.client, tls.NewLRUClientSessionCache(1)
				return config
			}
			resumes := func(config *tls.Config, blocked chan struct{}) bool {
				waiting <- blocked
				return connectPipe(server, config).ok(t).server.DidResume
			}
			old, young := client(), client()
			require.False(t, resumes(old, nil))
			time.Sleep(20 * time.Hour)
			require.False(t, resumes(young, nil))
			blocked, done := make(chan struct{}), make(chan bool)
			go func() { done <- resumes(old, blocked) }()
			<-blocked
			require.True(t, resumes(young, nil))
			blocked <- struct{}{}
			require.True(t, <-done)
			time.Sleep(5 * time.Hour)
			require.False(t, resumes(old, nil), "a day has passed since it began")
			require.True(t, resumes(young, nil))
		})
	}
}

// A client that sends its ticket only after a HelloRetryRequest does not resume: crypto/tls accepts
// that, but the config for handshakes without a ticket is shared by many.
func TestTicketOfTheSecondHello(t *testing.T) {
	ca := tlstest.NewCA(t)
	server := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))}).ServerTLS()
	for _, version := range versions {
		client, kept := ca.ClientConfig(t, "localhost"), &tlstest.Replay{}
		client.MaxVersion, client.ClientSessionCache = version, kept
		state := connect(t, server, client).ok(t).server
		ticket, _, err := kept.Session().ResumptionState()
		require.NoError(t, err)
		for _, offered := range []bool{true, false} {
			hello := &tls.ClientHelloInfo{ServerName: "localhost", SupportedVersions: []uint16{version}}
			if offered {
				hello.Extensions = []uint16{35, 41} // session_ticket, pre_shared_key
			}
			config, err := server.GetConfigForClient(hello)
			require.NoError(t, err)
			session, err := config.UnwrapSession(ticket, state)
			require.NoError(t, err)
			assert.Equal(t, offered, session != nil)
		}
	}
}

func TestResumptionOff(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{})), MaxSessionAge: -1})
	client := ca.ClientConfig(t, "localhost")
	replay := &tlstest.Replay{}
	client.ClientSessionCache = replay
	connect(t, m.ServerTLS(), client).ok(t)
	assert.Nil(t, replay.Session())
	assert.Nil(t, m.ClientTLS("localhost").ClientSessionCache)
}

// Machines that share ticket keys and files resume each other's sessions; what they
// trust differently they do not.
func TestSharedTicketKeys(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	keys := [][32]byte{{1}, {2}}
	machine := func(keys [][32]byte, cas ...*tlstest.CA) *certmanager.Manager {
		var bundle []byte
		for _, c := range cas {
			bundle = append(bundle, c.PEM()...)
		}
		folder := t.TempDir()
		cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, folder, "tls")
		return newManager(t, certmanager.Options{TicketKeys: keys, Source: certmanager.Files{Cert: cert, Key: key, ClientCAs: write(t, folder, "ca.crt", bundle)}})
	}
	first := machine(keys, ca, other)
	for name, c := range map[string]struct {
		second  *certmanager.Manager
		resumes bool
	}{
		"same":         {machine(keys, other, ca), true},
		"rotated keys": {machine([][32]byte{{3}, {1}}, ca, other), true},
		"other keys":   {machine([][32]byte{{2}}, ca, other), false},
		"less trust":   {machine(keys, ca), false},
		"own keys":     {machine(nil, ca, other), false},
	} {
		client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
		client.ClientSessionCache = &tlstest.Replay{}
		connect(t, first.ServerTLS(), client).ok(t)
		assert.Equal(t, c.resumes, connect(t, c.second.ServerTLS(), client).ok(t).server.DidResume, name)
		if name == "own keys" {
			require.NoError(t, c.second.SetTicketKeys(slices.Concat([][32]byte{{9}}, keys)))
			assert.True(t, connect(t, c.second.ServerTLS(), client).ok(t).server.DidResume, "keys set later")
			require.ErrorIs(t, c.second.SetTicketKeys([][32]byte{{}, {9}}), certmanager.ErrInvalid)
			assert.True(t, connect(t, c.second.ServerTLS(), client).ok(t).server.DidResume, "those before stay")
		}
	}
}

// The client's side: a session with a server whose certificate was revoked is not
// offered, so that the server's new certificate is seen.
func TestClientSessionsFollowTrust(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	root, crl := write(t, dir, "root.crt", ca.PEM()), write(t, dir, "crl", ca.CRL(t))
	m := newManager(t, certmanager.Options{Source: certmanager.Files{RootCAs: root, CRLs: crl}})
	client := m.ClientTLS("localhost")
	old, next := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
	server := newManager(t, certmanager.Options{Source: leaf(old)})
	connect(t, server.ServerTLS(), client).ok(t)
	require.True(t, connect(t, server.ServerTLS(), client).ok(t).client.DidResume)
	server.Update(next.Certificate())
	require.True(t, connect(t, server.ServerTLS(), client).ok(t).client.DidResume, "the session goes on")
	write(t, dir, "crl", ca.CRL(t, old.Leaf))
	require.NoError(t, m.Reload(t.Context()))
	c := connect(t, server.ServerTLS(), client).ok(t)
	assert.False(t, c.client.DidResume)
	assert.True(t, next.Leaf.Equal(c.client.PeerCertificates[0]))
}

// Nor is one that began with another certificate of the client's own: the server would take it for
// who it was then.
func TestClientSessionsFollowTheirCertificate(t *testing.T) {
	ca := tlstest.NewCA(t)
	server := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	for _, version := range versions {
		own := ca.Issue(t, tlstest.Leaf{})
		m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{own.Certificate()}, RootCAs: ca.Pool()}})
		client := m.ClientTLS("localhost")
		client.MaxVersion = version
		for range 2 {
			for _, resumed := range []bool{false, true} {
				c := connect(t, server.ServerTLS(), client).ok(t)
				assert.Equal(t, resumed, c.server.DidResume)
				assert.True(t, own.Leaf.Equal(c.server.PeerCertificates[0]))
			}
			own = ca.Issue(t, tlstest.Leaf{})
			m.Update(own.Certificate())
		}
	}
}

// A session that crypto/tls offers all the same is verified like any other.
func TestResumedServerIsVerified(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	server := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
	for _, version := range versions {
		m.SetRootCAs(ca.Pool())
		client := m.ClientTLS("localhost")
		client.MaxVersion, client.ClientSessionCache = version, &tlstest.Replay{}
		connect(t, server.ServerTLS(), client).ok(t)
		require.True(t, connect(t, server.ServerTLS(), client).ok(t).client.DidResume)
		m.SetRootCAs(tlstest.NewCA(t).Pool())
		require.ErrorIs(t, connect(t, server.ServerTLS(), client).clientErr, certmanager.ErrUntrusted)
	}
}

// A config made for each connection, as package meta does, resumes as one for all does.
func TestClientConfigsShareSessions(t *testing.T) {
	ca := tlstest.NewCA(t)
	server := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
	for _, version := range versions {
		m := newManager(t, certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
		for _, resumed := range []bool{false, true} {
			client := m.ClientTLS("localhost")
			client.MaxVersion = version
			got := connect(t, server.ServerTLS(), client).ok(t)
			assert.Equal(t, resumed, got.client.DidResume)
		}
	}
}

// A client whose session is too large for a ticket gets in, without resumption: its certificate is
// large, or has several ways up.
func TestSessionTooLargeForATicket(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	for count, resumes := range map[int]bool{2000: true, 2650: false, 2700: false, 2750: false, 4000: false} { // of names, of 24 bytes each
		names := make([]string, count)
		for i := range names {
			names[i] = fmt.Sprintf("host-%d.example.test", i)
		}
		cert := ca.Issue(t, tlstest.Leaf{CommonName: "large", Names: names}).Certificate()
		for _, version := range versions {
			client := ca.ClientConfig(t, "localhost")
			client.Certificates, client.MaxVersion, client.ClientSessionCache = []tls.Certificate{cert}, version, tls.NewLRUClientSessionCache(1)
			for i := range 3 {
				got := connect(t, m.ServerTLS(), client).ok(t)
				assert.Len(t, got.server.PeerCertificates, 1)
				assert.Equal(t, i > 0 && resumes, got.server.DidResume, count)
			}
		}
	}
}
