package meta_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// trackingManager is a manager with the optional methods, each replaced by a test.
type trackingManager struct {
	manager
	track func() (release func())
	shake func(ctx context.Context, conn *tls.Conn) error
}

func (m trackingManager) Track(*tls.ConnectionState, net.Addr, func(error)) (release func()) {
	return m.track()
}

func (m trackingManager) ServerHandshake(ctx context.Context, conn *tls.Conn) error {
	return m.shake(ctx, conn)
}

func shake(ctx context.Context, conn *tls.Conn) error { return conn.HandshakeContext(ctx) }
func track() func()                                   { return func() {} }

// panicking are the callbacks of a manager that panic for the server name of a test.
var panicking = map[string]func(m *trackingManager, boom func(name string)){
	"GetConfigForClient": func(m *trackingManager, boom func(string)) {
		m.server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			boom(hello.ServerName)
			return nil, nil
		}
	},
	"GetCertificate": func(m *trackingManager, boom func(string)) {
		pair := m.server.Certificates[0]
		m.server.Certificates = nil
		m.server.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			boom(hello.ServerName)
			return &pair, nil
		}
	},
	"VerifyPeerCertificate": func(m *trackingManager, boom func(string)) {
		inner := m.server.Clone()
		inner.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error {
			boom("boom.example.test")
			return nil
		}
		inner.ClientAuth = tls.RequireAnyClientCert
		m.server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName == "boom.example.test" {
				return inner, nil
			}
			return nil, nil
		}
	},
	"VerifyConnection": func(m *trackingManager, boom func(string)) {
		m.server.VerifyConnection = func(state tls.ConnectionState) error {
			boom(state.ServerName)
			return nil
		}
	},
	"PrivateKey.Sign": func(m *trackingManager, boom func(string)) {
		sick := m.server.Clone()
		sick.Certificates = []tls.Certificate{m.server.Certificates[0]}
		sick.Certificates[0].PrivateKey = remoteKey{sick.Certificates[0].PrivateKey.(crypto.Signer), func() { boom("boom.example.test") }}
		m.server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName == "boom.example.test" {
				return sick, nil
			}
			return nil, nil
		}
	},
	"CertManager.Track": func(m *trackingManager, boom func(string)) {
		calls := 0
		m.track = func() func() {
			if calls++; calls == 2 { // after the healthy one
				boom("boom.example.test")
			}
			return func() {}
		}
	},
	"release of CertManager.Track": func(m *trackingManager, boom func(string)) {
		calls := 0
		m.track = func() func() {
			calls++
			if calls == 2 {
				return func() { boom("boom.example.test") }
			}
			return func() {}
		}
	},
	"handshake": func(m *trackingManager, boom func(string)) {
		m.shake = func(ctx context.Context, conn *tls.Conn) error {
			err := conn.HandshakeContext(ctx)
			boom(conn.ConnectionState().ServerName)
			return err
		}
	},
}

// A callback that panics costs the connection that it panicked for: its peer gets an alert, its
// slot is free again, and the log says which callback it was and where.
func TestCallbacksThatPanic(t *testing.T) {
	for name, edit := range panicking {
		t.Run(name, func(t *testing.T) {
			tlsModes(t, func(t *testing.T, m mode) {
				managed := &trackingManager{manager: m.manager.(manager), track: track, shake: shake}
				managed.server = managed.server.Clone()
				edit(managed, func(name string) {
					if name == "boom.example.test" {
						panic("boom")
					}
				})
				a := newHost(t).spawn(echo)
				server, addr := a.listen(meta.TCPServerOptions{CertManager: managed, MaxHandshakeFailures: 1})
				healthy := m.dial(t, addr)
				expect[meta.MessageTCPConnect](a)

				client := m.client.Clone()
				client.ServerName, client.InsecureSkipVerify = "boom.example.test", true
				client.Certificates = m.manager.(manager).server.Certificates // any
				if m.client.Certificates != nil {
					client.Certificates = m.client.Certificates
				}
				sick := tls.Client(dialTCP(t, addr), client)
				err := sick.Handshake()
				if name == "release of CertManager.Track" {
					require.NoError(t, err)
					expect[meta.MessageTCPConnect](a)
					sick.Close()
					expect[meta.MessageTCPDisconnect](a)
				} else {
					if err == nil {
						_, err = sick.Read(make([]byte, 1))
					}
					require.Error(t, err)
					if name != "handshake" {
						assert.NotContains(t, err.Error(), "reset")
					}
					eventually(t, func() bool { return a.inspect(server)["refused"] == "1" }, "it is counted")
				}
				eventually(t, func() bool { return a.inspect(server)["connections"] == "1" }, "its slot is free")
				assert.Equal(t, "0", a.inspect(server)["handshake failures"], "the peer is not to blame")
				eventually(t, a.h.log.contains(name+" panicked: boom"), "it is logged")
				eventually(t, a.h.log.contains("panics_test.go"), "the stack is logged")
				talk(t, healthy)
				a.quiet()
			})
		})
	}
}

// The same for outgoing connections: whoever dialled hears why.
func TestClientCallbacksThatPanic(t *testing.T) {
	for name, edit := range map[string]func(config *tls.Config){
		"GetClientCertificate": func(config *tls.Config) {
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { panic("boom") }
		},
		"VerifyConnection": func(config *tls.Config) { config.VerifyConnection = func(tls.ConnectionState) error { panic("boom") } },
		"VerifyPeerCertificate": func(config *tls.Config) {
			config.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { panic("boom") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := modes()[3] // mutual
			managed := m.manager.(manager)
			managed.client = managed.client.Clone()
			edit(managed.client)
			h := newHost(t)
			server, client := h.spawn(echo), h.spawn(nil)
			_, addr := server.listen(meta.TCPServerOptions{CertManager: m.manager})
			client.connect(meta.TCPConnectionOptions{Host: "127.0.0.1", Port: portOf(t, addr), CertManager: managed})
			reason := expect[meta.MessageTCPDisconnect](client).Reason
			assert.ErrorIs(t, reason, meta.ErrHandshake)
			assert.ErrorContains(t, reason, name+" panicked: boom")
			eventually(t, h.log.contains("panics_test.go"), "the stack is logged")
		})
	}
}

// panickyListener panics in its first Accept.
type panickyListener struct {
	net.Listener
	calls *int
}

func (l panickyListener) Accept() (net.Conn, error) {
	if *l.calls++; *l.calls == 1 {
		panic("boom")
	}
	return l.Listener.Accept()
}

// A given listener that panics is one whose Accept has failed: the server tries again.
func TestListenerThatPanics(t *testing.T) {
	a := newHost(t).spawn(echo)
	id, addr := a.listen(meta.TCPServerOptions{Listener: panickyListener{newListener(t), new(int)}})
	talk(t, dialTCP(t, addr))
	assert.Equal(t, "1", a.inspect(id)["accept errors"])
	assert.Contains(t, a.h.log.String(), "Listener.Accept panicked: boom")
}

// A factory of actors that panics costs the connection that it was called for.
func TestActorFactoryThatPanics(t *testing.T) {
	calls := 0
	m := modes()[2]
	h, _, server, _ := actorServer(t, m, func() *counter {
		if calls++; calls == 2 {
			panic("boom")
		}
		return &counter{}
	})
	addr := meta.Stats(server).Listen
	ask := func() string {
		peer := m.dial(t, addr)
		_, err := io.WriteString(peer, "x\n")
		require.NoError(t, err)
		got := make([]byte, 2)
		n, _ := io.ReadFull(peer, got)
		return string(got[:n])
	}
	assert.Equal(t, "1\n", ask())
	assert.Empty(t, ask())
	assert.Equal(t, "1\n", ask())
	assert.EqualValues(t, 1, meta.Stats(server).Refused["panic"])
	eventually(t, h.log.contains("ActorServer.Actor panicked: boom"), "it is logged")
}
