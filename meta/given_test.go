package meta_test

import (
	"crypto/tls"
	"fmt"
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

// metered is a connection that embeds what the listener below has accepted.
type meteredListener struct{ net.Listener }

type metered struct{ net.Conn }

func (l meteredListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &metered{conn}, err
}

// A listener whose connections are TLS connections: nobody is announced before the handshake is
// complete, and who he is is known.
func TestGivenTLSListener(t *testing.T) {
	for name, wrap := range map[string]func(net.Listener) net.Listener{
		"tls.Listener": func(l net.Listener) net.Listener { return l },
		"wrapped":      func(l net.Listener) net.Listener { return meteredListener{l} },
	} {
		t.Run(name, func(t *testing.T) {
			tlsModes(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(echo)
				options := meta.TCPServerOptions{Listener: wrap(tls.NewListener(newListener(t), m.manager.(manager).server)), HandshakeTimeout: 300 * time.Millisecond}
				id, addr := a.listen(options)
				silent := dialTCP(t, addr)
				_, err := silent.Read(make([]byte, 1))
				assertEnded(t, err)
				eventually(t, func() bool { return a.inspect(id)["refused"] == "1" }, "it is refused")
				a.quiet()

				options.HandshakeTimeout = 0
				options.Listener = wrap(tls.NewListener(newListener(t), m.manager.(manager).server))
				_, addr = a.listen(options)
				peer := m.dial(t, addr)
				talk(t, peer)
				connect := expect[meta.MessageTCPConnect](a)
				require.NotNil(t, connect.TLS)
				assert.NotEmpty(t, connect.Peer.Version)
				assert.Equal(t, connect.Peer.Version, a.inspect(connect.ID)["tls"])
				peer.Close()
				assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
			})
		})
	}
	m := modes()[2]
	_, err := meta.CreateTCPServer(meta.TCPServerOptions{Listener: tls.NewListener(newListener(t), m.manager.(manager).server), CertManager: m.manager})
	require.ErrorIs(t, err, meta.ErrOption)
	assert.ErrorContains(t, err, "leave CertManager unset")
	a := newHost(t).spawn(echo)
	_, addr := a.listen(meta.TCPServerOptions{Listener: meteredListener{tls.NewListener(newListener(t), m.manager.(manager).server)}, CertManager: m.manager})
	_, err = dialTCP(t, addr).Read(make([]byte, 1))
	assertEnded(t, err)
	eventually(t, a.h.log.contains("leave CertManager unset"), "it says what is wrong")
}

// The listener of a certificate manager is one of them.
func TestGivenManagedListener(t *testing.T) {
	ca := tlstest.NewCA(t)
	manager, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}}})
	require.NoError(t, err)
	defer manager.Close()
	a := newHost(t).spawn(echo)
	_, addr := a.listen(meta.TCPServerOptions{Listener: manager.NewListener(newListener(t))})
	peer := tls.Client(dialTCP(t, addr), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	talk(t, peer)
	assert.Equal(t, "TLS 1.3", expect[meta.MessageTCPConnect](a).Peer.Version)
}

// A manager that no handshake can succeed with is refused before the socket is opened, with what to
// do.
func TestManagersThatCannotServe(t *testing.T) {
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{}).Certificate()
	usable, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{pair}}})
	require.NoError(t, err)
	ended, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{pair}}})
	require.NoError(t, err)
	require.NoError(t, ended.Close())
	empty, err := certmanager.New(certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool()}})
	require.NoError(t, err)
	defer empty.Close()

	server := func(m gen.CertManager) error {
		_, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", CertManager: m})
		return err
	}
	client := func(m gen.CertManager) error {
		_, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1, CertManager: m, Reconnect: &meta.Reconnect{}})
		return err
	}
	watcher := func(m gen.CertManager) error {
		_, err := meta.CreateCertWatcher(m.(*certmanager.Manager), meta.CertWatcherOptions{})
		return err
	}
	responder := func(m gen.CertManager) error {
		_, err := meta.CreateACMEResponder(meta.ACMEResponderOptions{CertManager: m, Host: "127.0.0.1", Port: 1})
		return err
	}
	for i, create := range []func(gen.CertManager) error{server, client, watcher, responder} {
		err := create((*certmanager.Manager)(nil))
		assert.ErrorIs(t, err, meta.ErrOption, i)
		assert.ErrorContains(t, err, "CertManager: is a nil *certmanager.Manager")
		for _, unusable := range []*certmanager.Manager{ended, {}} {
			err = create(unusable)
			assert.ErrorIs(t, err, meta.ErrOption, i)
			assert.ErrorContains(t, err, "CertManager: it was closed")
		}
	}
	err = server(empty)
	assert.ErrorIs(t, err, meta.ErrOption)
	assert.ErrorIs(t, err, certmanager.ErrNoCertificate)
	assert.NoError(t, client(empty), "a client needs none")

	a := newHost(t).spawn(echo)
	_, addr := a.listen(meta.TCPServerOptions{CertManager: usable})
	require.NoError(t, usable.Close())
	eventually(t, a.h.log.contains("the CertManager of "+addr+" was closed"), "the server says so")
	talk(t, tls.Client(dialTCP(t, addr), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}))
}

// What stands in Host and is no host is refused with what was meant.
func TestHosts(t *testing.T) {
	for host, says := range map[string]string{
		"127.0.0.1:4433":  `use Host: "127.0.0.1" and Port: 4433`,
		"localhost:4433":  `use Host: "localhost" and Port: 4433`,
		"[::1]:4433":      `use Host: "::1" and Port: 4433`,
		":4433":           `use Host: "" and Port: 4433`,
		"[::1]":           `use Host: "::1"`,
		"https://a.test/": "is not a host name",
		"a b":             "is not a host name",
		"a\nb":            "is not a host name",
		"a\x00b":          "is not a host name",
		"*":               "whose Host is empty listens on all interfaces",
		"*.a.test":        "is not a host name",
		"me@a.test":       "is not a host name",
		"a.test,b.test":   "is not a host name",
		"[::1":            "is not a host name",
		"fe80::1":         `use Host: "fe80::1%eth0"`,
	} {
		_, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: host})
		assert.ErrorIs(t, err, meta.ErrOption, host)
		assert.ErrorContains(t, err, says)
		_, err = meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: host, Port: 1})
		assert.ErrorIs(t, err, meta.ErrOption, host)
		assert.ErrorContains(t, err, says)
	}
}

// The same for the name of a server, which may be an address.
func TestServerNames(t *testing.T) {
	certs := modes()[2].manager
	for name, says := range map[string]string{
		"a.test:443": `ServerName: "a.test:443" has a port; use ServerName: "a.test"`, "https://a.test": "ServerName: ", " a.test": "ServerName: ",
		"*.a.test": "ServerName: ", "a\nb": "ServerName: ", "[::1]": `use ServerName: "::1"`,
	} {
		_, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1, CertManager: certs, ServerName: name, Reconnect: &meta.Reconnect{}})
		assert.ErrorIs(t, err, meta.ErrOption, name)
		assert.ErrorContains(t, err, says)
	}
	for _, name := range []string{"", "localhost", "LOCALHOST.", "127.0.0.1", "::1", "fe80::1", "a_b.test", "bücher.test"} {
		c, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1, CertManager: certs, ServerName: name, Reconnect: &meta.Reconnect{}})
		require.NoError(t, err, name)
		c.Terminate(nil)
	}
}

// localhost is both loopback addresses, on one port: a client may try either.
func TestLocalhostIsBothAddresses(t *testing.T) {
	t.Parallel()
	probe, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("this system has no ::1")
	}
	probe.Close()
	eachMode(t, func(t *testing.T, m mode) {
		if mm, ok := m.manager.(manager); ok && mm.wrapped {
			t.Skip("its listener is given")
		}
		a := newHost(t).spawn(echo)
		id, addr := a.listen(meta.TCPServerOptions{Host: "localhost", CertManager: m.manager, MaxConnections: 2})
		port := portOf(t, addr)
		for _, host := range []string{"127.0.0.1", "[::1]", "127.0.0.1", "[::1]"} {
			peer := m.dial(t, fmt.Sprintf("%s:%d", host, port))
			talk(t, peer)
			expect[meta.MessageTCPConnect](a)
			peer.Close()
			expect[meta.MessageTCPDisconnect](a)
		}
		assert.Contains(t, a.h.log.String(), fmt.Sprintf("listening on 127.0.0.1:%d and [::1]:%d", port, port))
		_, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "::1", Port: port})
		assert.ErrorIs(t, err, meta.ErrListen)
		_, err = meta.CreateTCPServer(meta.TCPServerOptions{Host: "localhost", Port: port})
		assert.ErrorIs(t, err, meta.ErrListen)
		a.do(func(o *owner) { assert.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
		eventually(t, func() bool {
			again, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "localhost", Port: port})
			if err == nil {
				again.Terminate(nil)
			}
			return err == nil
		}, "both are free again")
	})
}
