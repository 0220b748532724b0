package certmanager_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func TestServesStaticCertificate(t *testing.T) {
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{})
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{pair.Certificate()}, RootCAs: ca.Pool()}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := ca.ClientConfig(t, "localhost")
		client.MaxVersion = version
		c := connect(t, m.ServerTLS(), client).ok(t)
		assert.Equal(t, version, c.client.Version)
		assert.True(t, pair.Leaf.Equal(c.client.PeerCertificates[0]))

		own := m.ClientTLS("localhost")
		own.MaxVersion = version
		connect(t, m.ServerTLS(), own).ok(t)
	}
	got := m.GetCertificate()
	assert.True(t, pair.Leaf.Equal(got.Leaf))
}

func TestOldProtocolsAndSuitesAreRefused(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}}})
	old := ca.ClientConfig(t, "localhost")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	connect(t, m.ServerTLS(), old).refused(t)
	cbc := ca.ClientConfig(t, "localhost")
	cbc.MaxVersion, cbc.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	connect(t, m.ServerTLS(), cbc).refused(t)
}

// A client without SNI is answered too: Certificates stays empty, or crypto/tls would
// not ask for it.
func TestServesDefaultWithoutSNI(t *testing.T) {
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{})
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{pair.Certificate()}}})
	c := connect(t, m.ServerTLS(), ca.ClientConfig(t, "127.0.0.1")).ok(t)
	assert.Empty(t, c.server.ServerName)
	assert.True(t, pair.Leaf.Equal(c.client.PeerCertificates[0]))
}

func TestMutualTLS(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()},
		ClientCAs:    ca.Pool(), RootCAs: ca.Pool(),
	}})
	require.Equal(t, tls.RequireAndVerifyClientCert, m.ClientAuth())
	c := connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t)
	assert.Len(t, c.server.VerifiedChains, 1)
	connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).refused(t)

	client := ca.ClientConfig(t, "localhost")
	unknown := other.Issue(t, tlstest.Leaf{}).Certificate()
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &unknown, nil }
	connect(t, m.ServerTLS(), client).refused(t)
}

func TestImpossibleOptions(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert := ca.Issue(t, tlstest.Leaf{}).Certificate()
	static := certmanager.Static{Certificates: []tls.Certificate{cert}}
	other := ca.Issue(t, tlstest.Leaf{}).Certificate()
	for name, o := range map[string]struct {
		options certmanager.Options
		says    string
		is      error
	}{
		"no source":        {certmanager.Options{}, "Options.Source is missing", nil},
		"auth unverified":  {certmanager.Options{Source: static, ClientAuth: tls.RequireAnyClientCert}, "Options.ClientAuth", certmanager.ErrInvalid},
		"auth without CAs": {certmanager.Options{Source: static, ClientAuth: tls.RequireAndVerifyClientCert}, "client CA bundle", certmanager.ErrInvalid},
		"ask without CAs":  {certmanager.Options{Source: static, ClientAuth: tls.VerifyClientCertIfGiven}, "client CA bundle", certmanager.ErrInvalid},
		"rule without CAs": {certmanager.Options{Source: static, ClientRule: certmanager.DNSName("a")}, "ClientRule", certmanager.ErrInvalid},
		"long sessions":    {certmanager.Options{Source: static, MaxSessionAge: 8 * 24 * time.Hour}, "Options.MaxSessionAge", nil},
		"negative poll":    {certmanager.Options{Source: static, PollInterval: -1}, "Options.PollInterval", nil},
		"poll of 10 ns":    {certmanager.Options{Source: static, PollInterval: 10}, "A number alone is nanoseconds", nil},
		"sessions of 1 µs": {certmanager.Options{Source: static, MaxSessionAge: 1000}, "A number alone is nanoseconds", nil},
		"zero logger":      {certmanager.Options{Source: static, Logger: new(slog.Logger)}, "Options.Logger", nil},
		"name not covered": {certmanager.Options{Source: static, RequireNames: []string{"localhost", "b.test"}}, "b.test", certmanager.ErrNotCovered},
		"nothing":          {certmanager.Options{Source: certmanager.Static{}}, "neither", certmanager.ErrNoCertificate},
		"no file":          {certmanager.Options{Source: certmanager.Files{}}, "names no file", certmanager.ErrInvalid},
		"key alone":        {certmanager.Options{Source: certmanager.Files{Key: "k"}}, "Files.Key", certmanager.ErrInvalid},
		"missing":          {certmanager.Options{Source: certmanager.Files{Cert: "/nowhere/a.crt"}}, "/nowhere/a.crt", nil},
		"key of another":   {certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{{Certificate: cert.Certificate, PrivateKey: other.PrivateKey}}}}, "", certmanager.ErrMismatch},
		"expired":          {certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}.Expired()))}, "ended", certmanager.ErrExpired},
		"not yet valid":    {certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}.NotYetValid()))}, "begins", certmanager.ErrNotYetValid},
		"wrong usage":      {certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{Usage: tlstest.WrongUsage}))}, "extended key usage", certmanager.ErrInvalid},
		"two pools":        {certmanager.Options{Source: certmanager.Sources{certmanager.Static{RootCAs: ca.Pool()}, certmanager.Static{RootCAs: ca.Pool()}}}, "RootCAs", certmanager.ErrInvalid},
		"nil in sources":   {certmanager.Options{Source: certmanager.Sources{nil}}, "Sources[0]", certmanager.ErrInvalid},
		"zero ticket key":  {certmanager.Options{Source: static, TicketKeys: [][32]byte{{1}, {}}}, "ticket key 1 is all zero", certmanager.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tryNew(o.options)
			require.ErrorContains(t, err, o.says)
			if o.is != nil {
				require.ErrorIs(t, err, o.is)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{Key: tlstest.ECDSAP256}))})
	next := ca.Issue(t, tlstest.Leaf{Key: tlstest.RSA2048}) // less preferred, but it is what was asked for
	m.Update(next.Certificate())
	assert.Equal(t, next.Leaf.SerialNumber.String(), serial(t, m, ca))

	events := collect(m)
	m.Update(ca.Issue(t, tlstest.Leaf{}.Expired()).Certificate())
	m.Update(tls.Certificate{})
	assert.Equal(t, next.Leaf.SerialNumber.String(), serial(t, m, ca), "what failed is not served")
	eventually(t, "two rejections", func() bool { return len(events(certmanager.Rejected)) == 2 })
	assert.ErrorIs(t, events(certmanager.Rejected)[0].Err, certmanager.ErrExpired)
	assert.Equal(t, uint64(2), m.Status().Rejections)
}

func TestSettersWorkAtOnce(t *testing.T) {
	ca, next := tlstest.NewCA(t), tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
	server := m.ServerTLS()
	old := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
	fresh := ca.ClientConfig(t, "localhost")
	cert := next.Issue(t, tlstest.Leaf{}).Certificate()
	fresh.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }

	connect(t, server, old).ok(t)
	m.SetClientCAs(ca.Pool()) // a bundle turns client authentication on
	assert.Equal(t, tls.RequireAndVerifyClientCert, m.ClientAuth())
	connect(t, server, old).ok(t)
	connect(t, server, fresh).refused(t)
	m.SetClientCAs(next.Pool())
	connect(t, server, old).refused(t)
	connect(t, server, fresh).ok(t)
	m.SetClientAuth(tls.NoClientCert)
	connect(t, server, old).ok(t)

	m.SetRootCAs(next.Pool())
	connect(t, server, m.ClientTLS("localhost")).refused(t)
	m.SetRootCAs(ca.Pool())
	client := m.ClientTLS("localhost")
	connect(t, server, client).ok(t)
	m.SetRootCAs(next.Pool())
	connect(t, server, client).refused(t) // a config that was made before, and a session that it holds
	m.SetRootCAs(ca.Pool())

	m.SetServerName("other.test")
	assert.Equal(t, "other.test", m.ServerName())
	connect(t, server, m.ClientTLS("")).refused(t)
	m.SetServerName("localhost")
	connect(t, server, m.ClientTLS("")).ok(t)
}

// Ergo's users set the two in any order: in between nobody is let in.
func TestClientAuthBeforeClientCAs(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
	m.SetClientAuth(tls.RequireAndVerifyClientCert)
	client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
	connect(t, m.ServerTLS(), client).refused(t)
	m.SetClientCAs(ca.Pool())
	connect(t, m.ServerTLS(), client).ok(t)

	m.SetClientAuth(tls.RequireAnyClientCert)
	assert.Equal(t, tls.RequireAndVerifyClientCert, m.ClientAuth())
	assert.Contains(t, m.Status().LastError, "SetClientAuth")
}

func TestClientVerifiesFully(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	server := func(l tlstest.Leaf) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, l).Certificate()}}
	}
	connect(t, server(tlstest.Leaf{}), m.ClientTLS("localhost")).ok(t)
	connect(t, server(tlstest.Leaf{}), m.ClientTLS("127.0.0.1")).ok(t)
	for name, l := range map[string]tlstest.Leaf{
		"other name": {Names: []string{"other.test"}},
		"expired":    tlstest.Leaf{}.Expired(),
		"too early":  tlstest.Leaf{}.NotYetValid(),
		"client":     {Names: []string{"localhost"}, Usage: tlstest.ClientOnly},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, server(l), m.ClientTLS("localhost")).refused(t)
			require.NotErrorIs(t, c.clientErr, certmanager.ErrRevoked)
		})
	}
	t.Run("other CA", func(t *testing.T) {
		c := connect(t, tlstest.NewCA(t).ServerConfig(t), m.ClientTLS("localhost"))
		require.ErrorIs(t, c.clientErr, certmanager.ErrUntrusted)
		var verification *tls.CertificateVerificationError
		require.ErrorAs(t, c.clientErr, &verification)
		var unknown x509.UnknownAuthorityError
		require.ErrorAs(t, c.clientErr, &unknown)
	})
	t.Run("IP address without a name", func(t *testing.T) {
		c := connect(t, server(tlstest.Leaf{}), m.ClientTLS(""))
		require.ErrorIs(t, c.clientErr, certmanager.ErrUntrusted)
		require.ErrorContains(t, c.clientErr, "ClientTLS")
	})
	t.Run("intermediate", func(t *testing.T) {
		connect(t, ca.Intermediate(t).ServerConfig(t), m.ClientTLS("localhost")).ok(t)
	})
}

// Within a generation every connection gets the same config.
func TestConfigsAreMadeOncePerGeneration(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
	server := m.ServerTLS()
	get := func() *tls.Config {
		config, err := server.GetConfigForClient(&tls.ClientHelloInfo{})
		require.NoError(t, err)
		return config
	}
	first := get()
	assert.Same(t, first, get())
	m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
	second := get()
	assert.NotSame(t, first, second)
	assert.Same(t, second, get())
}

func TestClose(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
	server := m.ServerTLS()
	before := m.Status()
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
	connect(t, server, ca.ClientConfig(t, "localhost")).ok(t)
	m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
	m.SetClientAuth(tls.NoClientCert)
	assert.Equal(t, before, m.Status(), "nothing changes after Close")
	release := m.Track(&tls.ConnectionState{}, nil, func(error) { t.Error("evicted after Close") })
	release()
}

func TestReloadAfterClose(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}})
	require.NoError(t, m.Close())
	ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	require.True(t, errors.Is(m.Reload(t.Context()), certmanager.ErrClosed))
}

// A certificate of a public CA meets clients of a private one, and a client of one CA the servers
// of another.
func TestPeersOfAnotherCA(t *testing.T) {
	ours, theirs := tlstest.NewCA(t), tlstest.NewCA(t)
	server := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ours.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: theirs.Pool(),
	}})
	client := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{theirs.Issue(t, tlstest.Leaf{}).Certificate()}, RootCAs: ours.Pool(),
	}})
	connect(t, server.ServerTLS(), client.ClientTLS("localhost")).ok(t)
}
