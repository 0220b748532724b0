package meta_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// A peer that begins a handshake and says no more is dropped at the deadline, and no actor hears of
// it.
func TestHandshakeTimeout(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, HandshakeTimeout: 50 * time.Millisecond})
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(testTimeout))
		_, err = conn.Write([]byte{22})
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, conn)
		require.NoError(t, err)
		eventually(t, func() bool { return a.inspect(id)["handshake failures"] == "1" }, "it is counted")
		assert.Equal(t, "0", a.inspect(id)["connections"])
		a.quiet()
	})
}

// An outgoing connection tells of a failed handshake as of any other end.
func TestOutgoingHandshakeFails(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		h := newHost(t)
		server, client := h.spawn(echo), h.spawn(nil)
		_, addr := server.listen(meta.TCPServerOptions{CertManager: m.manager})
		stranger := manager{client: &tls.Config{RootCAs: tlstest.NewCA(t).Pool()}}

		id := client.connect(meta.TCPConnectionOptions{Port: portOf(t, addr), CertManager: stranger})
		disconnect := expect[meta.MessageTCPDisconnect](client)
		assert.Equal(t, id, disconnect.ID)
		assert.ErrorIs(t, disconnect.Reason, meta.ErrHandshake)
		assert.ErrorAs(t, disconnect.Reason, new(x509.UnknownAuthorityError))
		client.quiet()
	})
}

func TestServerName(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		h := newHost(t)
		server, client := h.spawn(echo), h.spawn(nil)
		_, addr := server.listen(meta.TCPServerOptions{CertManager: m.manager})
		for host, name := range map[string]string{"localhost": "", "127.0.0.1": "localhost"} {
			client.connect(meta.TCPConnectionOptions{Host: host, Port: portOf(t, addr), ServerName: name, CertManager: m.manager})
			assert.Equal(t, "localhost", expect[meta.MessageTCPConnect](client).TLS.ServerName)
			assert.Equal(t, "localhost", expect[meta.MessageTCPConnect](server).Peer.SNI)
		}
		client.connect(meta.TCPConnectionOptions{Port: portOf(t, addr), ServerName: "other.example.test", CertManager: m.manager})
		assert.ErrorAs(t, expect[meta.MessageTCPDisconnect](client).Reason, new(x509.HostnameError))
	})
}

// A server is verified for its address, without the interface that leads to it, which the client
// has to name where the address is link-local.
func TestServerOfAddressWithZone(t *testing.T) {
	listener, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("this system has no ::1")
	}
	ca := tlstest.NewCA(t)
	certs := manager{
		server: &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{Names: []string{"::1"}}).Certificate()}},
		client: &tls.Config{RootCAs: ca.Pool()},
	}
	h := newHost(t)
	server, client := h.spawn(nil), h.spawn(nil)
	_, addr := server.listen(meta.TCPServerOptions{Listener: listener, CertManager: certs})
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: "::1%lo", Port: portOf(t, addr), CertManager: certs})
	if err != nil {
		t.Skip("this system has no interface lo")
	}
	client.do(func(o *owner) { _, err = o.SpawnMeta(connection, gen.MetaOptions{}) })
	require.NoError(t, err)
	expect[meta.MessageTCPConnect](client)
	expect[meta.MessageTCPConnect](server)
}

func TestInsecureSkipVerify(t *testing.T) {
	ca, stranger := tlstest.NewCA(t), tlstest.NewCA(t)
	managed := func(static certmanager.Static, auth tls.ClientAuthType) *certmanager.Manager {
		m, err := certmanager.New(certmanager.Options{Source: static, ClientAuth: auth})
		require.NoError(t, err)
		t.Cleanup(func() { m.Close() })
		return m
	}
	server := managed(certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
	}, tls.RequireAndVerifyClientCert)
	t.Run("client", func(t *testing.T) {
		h := newHost(t)
		a, b := h.spawn(nil), h.spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: server})
		client := managed(certmanager.Static{
			Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, RootCAs: stranger.Pool(),
		}, 0)
		options := meta.TCPConnectionOptions{Port: portOf(t, addr), CertManager: client}
		b.connect(options)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](b).Reason, meta.ErrHandshake)
		options.InsecureSkipVerify = true
		b.connect(options)
		assert.False(t, expect[meta.MessageTCPConnect](b).Peer.Verified)
		eventually(t, h.log.contains("InsecureSkipVerify"), "a warning")
	})
	t.Run("server", func(t *testing.T) {
		h := newHost(t)
		a := h.spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: server, InsecureSkipVerify: true})
		eventually(t, h.log.contains("InsecureSkipVerify"), "a warning")
		for range 2 {
			config := ca.ClientConfig(t, "localhost")
			cert := stranger.Issue(t, tlstest.Leaf{CommonName: "stranger"}).Certificate()
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			mode{manager: server, client: config}.dial(t, addr)
			connect := expect[meta.MessageTCPConnect](a)
			assert.Equal(t, "CN=stranger", connect.Peer.Subject)
			assert.False(t, connect.Peer.Verified)
		}
		// It still asks: a client without a certificate is refused.
		conn, err := tls.Dial("tcp", addr, ca.ClientConfig(t, "localhost"))
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		assert.ErrorContains(t, err, "certificate required")
		a.quiet()
	})
}

// authManager has the shape of Ergo 3.2's CertAuthManager around a plain manager.
type authManager struct {
	gen.CertManager
	clientCAs, rootCAs *x509.CertPool
	auth               tls.ClientAuthType
	name               string
}

func (m *authManager) ClientCAs() *x509.CertPool      { return m.clientCAs }
func (m *authManager) RootCAs() *x509.CertPool        { return m.rootCAs }
func (m *authManager) ClientAuth() tls.ClientAuthType { return m.auth }
func (m *authManager) ServerName() string             { return m.name }

// A Manager is what Ergo takes for its own servers too. The engine has no CertAuthManager; this is
// what Ergo documents of it.
var _ interface {
	gen.CertManager

	SetClientCAs(*x509.CertPool)
	SetClientAuth(tls.ClientAuthType)
	SetRootCAs(*x509.CertPool)
	SetServerName(string)
	ClientCAs() *x509.CertPool
	ClientAuth() tls.ClientAuthType
	RootCAs() *x509.CertPool
	ServerName() string
} = (*certmanager.Manager)(nil)

func TestOtherManagers(t *testing.T) {
	ca := tlstest.NewCA(t)
	first, second := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
	t.Run("plain", func(t *testing.T) {
		plain := gen.CreateCertManager(first.Certificate())
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: plain})
		client := mode{manager: plain, client: ca.ClientConfig(t, "localhost")}
		serial := func() string {
			return client.dial(t, addr).(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
		}
		assert.Equal(t, first.Leaf.SerialNumber.String(), serial())
		plain.Update(second.Certificate())
		assert.Equal(t, second.Leaf.SerialNumber.String(), serial())
	})
	t.Run("CertAuthManager", func(t *testing.T) {
		auth := &authManager{gen.CreateCertManager(first.Certificate()), ca.Pool(), ca.Pool(), tls.RequireAndVerifyClientCert, "localhost"}
		h := newHost(t)
		a, b := h.spawn(echo), h.spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: auth})
		options := meta.TCPConnectionOptions{Host: "127.0.0.1", Port: portOf(t, addr), CertManager: auth}
		id := b.connect(options)
		assert.Equal(t, "localhost", expect[meta.MessageTCPConnect](b).TLS.ServerName)
		assert.True(t, expect[meta.MessageTCPConnect](a).Peer.Verified)
		b.send(id, meta.MessageTCPClose{})
		expect[meta.MessageTCPDisconnect](b)
		expect[meta.MessageTCPDisconnect](a)

		auth.clientCAs = tlstest.NewCA(t).Pool()
		b.connect(options)
		expect[meta.MessageTCPConnect](b)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](b).Reason, meta.ErrRefused)

		auth.clientCAs = nil
		_, err := meta.CreateTCPServer(meta.TCPServerOptions{CertManager: auth})
		assert.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, "ClientCAs")
	})
}

// No session of a client that must be trusted is resumed. The plain config with GetConfigForClient
// would resume it after the client's CA was removed.
func TestResumptionDoesNotOutliveTrust(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ca := tlstest.NewCA(t)
			auth := &authManager{gen.CreateCertManager(ca.Issue(t, tlstest.Leaf{}).Certificate()), ca.Pool(), ca.Pool(), tls.RequireAndVerifyClientCert, ""}
			a := newHost(t).spawn(echo)
			_, addr := a.listen(meta.TCPServerOptions{CertManager: auth})
			config := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
			config.MaxVersion = version
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			once := func() (resumed bool, err error) {
				conn, err := tls.Dial("tcp", addr, config)
				if err != nil {
					return false, err
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(testTimeout))
				conn.Write([]byte("x"))
				_, err = conn.Read(make([]byte, 1))
				return conn.ConnectionState().DidResume, err
			}
			_, err := once()
			require.NoError(t, err)
			resumed, err := once()
			require.NoError(t, err)
			assert.False(t, resumed)
			auth.clientCAs = tlstest.NewCA(t).Pool()
			_, err = once()
			assert.Error(t, err)
		})
	}
}

// A server that takes any certificate, and names CAs only as a hint, resumes its sessions.
func TestResumptionOfAnyClient(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ca := tlstest.NewCA(t)
		auth := &authManager{gen.CreateCertManager(ca.Issue(t, tlstest.Leaf{}).Certificate()), ca.Pool(), nil, tls.RequireAnyClientCert, ""}
		a := newHost(t).spawn(echo)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: auth})
		config := ca.ClientConfig(t, "localhost")
		untrusted := tlstest.NewCA(t).Issue(t, tlstest.Leaf{}).Certificate()
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &untrusted, nil }
		config.MaxVersion = version
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 2 {
			conn, err := tls.Dial("tcp", addr, config)
			require.NoError(t, err, tls.VersionName(version))
			conn.SetDeadline(time.Now().Add(testTimeout))
			conn.Write([]byte("x"))
			_, err = conn.Read(make([]byte, 1))
			require.NoError(t, err, tls.VersionName(version))
			assert.Equal(t, i == 1, conn.ConnectionState().DidResume, tls.VersionName(version))
			assert.False(t, expect[meta.MessageTCPConnect](a).Peer.Verified)
			conn.Close()
			expect[meta.MessageTCPDisconnect](a)
		}
	}
}

// A manager may be told of connections after their handshake, or before it too.
func TestEviction(t *testing.T) {
	type tracker interface {
		gen.CertManager
		ServerTLS() *tls.Config
		Track(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())
	}
	for name, as := range map[string]func(*certmanager.Manager) gen.CertManager{
		"Handshake": func(m *certmanager.Manager) gen.CertManager { return m },
		"Track":     func(m *certmanager.Manager) gen.CertManager { return struct{ tracker }{m} },
	} {
		t.Run(name, func(t *testing.T) {
			ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
			m, err := certmanager.New(certmanager.Options{Source: certmanager.Static{
				Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool(),
			}})
			require.NoError(t, err)
			defer m.Close()
			a := newHost(t).spawn(echo)
			_, addr := a.listen(meta.TCPServerOptions{CertManager: as(m)})
			conn := mode{manager: m, client: ca.MutualClientConfig(t, "localhost", tlstest.Leaf{CommonName: "alice"})}.dial(t, addr)
			connect := expect[meta.MessageTCPConnect](a)

			m.SetClientCAs(other.Pool())
			disconnect := expect[meta.MessageTCPDisconnect](a)
			assert.Equal(t, connect.ID, disconnect.ID)
			assert.ErrorIs(t, disconnect.Reason, meta.ErrEvicted)
			assert.ErrorIs(t, disconnect.Reason, certmanager.ErrUntrusted)
			_, err = conn.Read(make([]byte, 1))
			assert.ErrorIs(t, err, io.EOF, "it was closed in order")
		})
	}
}

// evictor ends each connection at once, and does not say why.
type evictor struct{ gen.CertManager }

func (evictor) Track(_ *tls.ConnectionState, _ net.Addr, evict func(reason error)) (release func()) {
	evict(nil)
	return func() {}
}

func TestEvictionWithoutReason(t *testing.T) {
	ca := tlstest.NewCA(t)
	a := newHost(t).spawn(echo)
	_, addr := a.listen(meta.TCPServerOptions{CertManager: evictor{gen.CreateCertManager(ca.Issue(t, tlstest.Leaf{}).Certificate())}})
	conn, err := tls.Dial("tcp", addr, ca.ClientConfig(t, "localhost"))
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF, "it was closed in order")
	assert.Equal(t, map[string]uint64{"not authorized": 1}, meta.Stats(a.server).Refused)
}

// A connection is as old as the set that was in service before its handshake.
func TestRecycling(t *testing.T) {
	ca := tlstest.NewCA(t)
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}}})
	require.NoError(t, err)
	defer m.Close()
	a := newHost(t).spawn(echo)
	_, addr := a.listen(meta.TCPServerOptions{CertManager: m})
	next, client := ca.Issue(t, tlstest.Leaf{}).Certificate(), ca.ClientConfig(t, "localhost")
	client.VerifyConnection = func(tls.ConnectionState) error {
		m.Update(next) // while the server waits for the client's Finished
		return nil
	}
	mode{manager: m, client: client}.dial(t, addr)
	expect[meta.MessageTCPConnect](a)
	assert.Equal(t, 1, m.Recycle(m.Status().Generation, 0))
	assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, certmanager.ErrRecycled)
}

// What both sides speak is agreed on; a client that speaks something else only is refused.
func TestNextProtos(t *testing.T) {
	p := newPKI(t, false)
	bare := gen.CreateCertManager(p.manager.GetCertificate())
	for name, certs := range map[string]gen.CertManager{"certmanager": p.manager, "plain": bare} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			server, client := h.spawn(echo), h.spawn(nil)
			_, addr := server.listen(meta.TCPServerOptions{CertManager: certs, NextProtos: []string{"echo/2", "echo/1"}})
			for offered, agreed := range map[string]string{"echo/1": "echo/1", "": "", "other": "refused"} {
				options := meta.TCPConnectionOptions{Port: portOf(t, addr), CertManager: certs, InsecureSkipVerify: true}
				if offered != "" {
					options.NextProtos = []string{offered}
				}
				client.connect(options)
				if agreed == "refused" {
					disconnect := expect[meta.MessageTCPDisconnect](client)
					assert.ErrorIs(t, disconnect.Reason, meta.ErrRefused)
					assert.ErrorContains(t, disconnect.Reason, "no application protocol")
					continue
				}
				assert.Equal(t, agreed, expect[meta.MessageTCPConnect](client).Peer.ALPN)
				assert.Equal(t, agreed, expect[meta.MessageTCPConnect](server).Peer.ALPN)
			}
		})
	}
}

// A client that connects again resumes its session, though every connection has a configuration of
// its own.
func TestOutgoingResumption(t *testing.T) {
	p := newPKI(t, true)
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: p.file("client.crt"), Key: p.file("client.key"), RootCAs: p.file("root.crt"),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { certs.Close() })
	h := newHost(t)
	server, client := h.spawn(echo), h.spawn(nil)
	_, addr := server.listen(meta.TCPServerOptions{CertManager: p.manager})
	for _, resumed := range []bool{false, true} {
		id := client.connect(meta.TCPConnectionOptions{Port: portOf(t, addr), CertManager: certs})
		connect := expect[meta.MessageTCPConnect](client)
		assert.Equal(t, resumed, connect.Peer.Resumed)
		assert.True(t, connect.Peer.Verified)
		client.send(id, meta.MessageTCP{Data: []byte("hello")}) // the answer comes behind the ticket
		expect[meta.MessageTCP](client)
		client.send(id, meta.MessageTCPClose{})
		expect[meta.MessageTCPDisconnect](client)
	}
}
