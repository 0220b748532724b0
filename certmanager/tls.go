package certmanager

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync/atomic"

	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/internal/conninfo"
	"github.com/ergotls/ergotls/internal/sni"
)

// suites are the TLS 1.2 cipher suites in use: ECDHE for forward secrecy, AEAD against padding
// oracles. All TLS 1.3 suites are of this kind.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func newTLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites}
}

// ServerTLS returns a config for servers, for example for http.Server.TLSConfig. Every handshake
// uses the set that is in service when it begins. If the names of the client CAs exceed 16 KiB in
// total, they are not sent, and tls.ConnectionState.VerifiedChains is empty; clients are still
// verified. The config does not answer challenges of a CA: see [Manager.ServerHandshake].
//
// Before the first handshake only NextProtos, MinVersion, MaxVersion, CipherSuites and
// CurvePreferences may be set; weaker values than those of the config are not refused. If
// ClientAuth, ClientCAs, VerifyPeerCertificate, VerifyConnection or Certificates is set, every
// handshake fails, because the Manager decides which clients to accept ([Options], SetClientAuth,
// SetClientCAs). Set fields on this config, not on a Clone: handshakes do not see the fields of a
// clone. http.Server sets NextProtos itself. For grpc-go, set it to []string{"h2"}, because
// credentials.NewTLS sets it on a clone.
//
// The Manager closes open connections whose client is no longer trusted only if it tracks them: see
// [Manager.ConnState] and [Manager.Accepting].
func (m *Manager) ServerTLS() *tls.Config {
	s := &server{m: m, outer: newTLSConfig()}
	s.outer.GetConfigForClient = s.configForClient
	// The two below are for callers that check for a certificate, and for the first of the two places
	// where crypto/tls reads these keys.
	s.outer.GetCertificate = m.GetCertificateFunc()
	s.outer.GetEncryptedClientHelloKeys = func(*tls.ClientHelloInfo) ([]tls.EncryptedClientHelloKey, error) {
		return m.current.Load().in.material.all.ECHKeys, nil
	}
	return s.outer
}

// server is one config from ServerTLS.
type server struct {
	m     *Manager
	outer *tls.Config
	inner atomic.Pointer[innerConfig]
}

// innerConfig is the config for handshakes of one generation. It is made once and then only read:
// one for each connection would cost more than the certificate lookup.
type innerConfig struct {
	snapshot *snapshot
	config   *tls.Config
}

func (s *server) configForClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if err := sni.Check(hello.ServerName); err != nil {
		return nil, err
	}
	current := s.m.current.Load()
	if current == nil {
		return nil, fmt.Errorf("certmanager: %w: New did not make it", ErrClosed)
	}
	if config := challengeConfig(hello, current.in.material.challenges); config != nil {
		return config, nil
	}
	inner := s.inner.Load()
	if inner == nil || inner.snapshot != current {
		if err := checkOuter(s.outer); err != nil {
			return nil, err
		}
		inner = &innerConfig{snapshot: current, config: s.m.serverConfig(current, s.outer)}
		s.inner.Store(inner)
	}
	ticket, conn, asks := offersTicket(hello, inner.config.MaxVersion), s.m.httpConnOf(hello), inner.config.ClientAuth != tls.NoClientCert
	if !ticket && conn == nil && !asks {
		return inner.config, nil
	}
	// Exceptions that need a config for each connection: UnwrapSession must tell WrapSession when the
	// session began, and VerifyConnection must know the connection, to report a refused client. The
	// callbacks share nothing but the config.
	config := inner.config.Clone()
	if ticket {
		(&resumption{m: s.m, snapshot: current}).install(config)
	}
	remote := conninfo.RemoteAddr(hello.Conn)
	config.VerifyConnection = func(state tls.ConnectionState) error {
		err := s.m.verifyClient(current, state, remote)
		if err == nil && conn != nil {
			conn.known(&state) // track it now: otherwise a change of trust before its first request goes unnoticed
		}
		return err
	}
	return config, nil
}

// checkOuter refuses a config with fields that handshakes would ignore, since each handshake has
// its own config: the program may rely on them to refuse clients.
func checkOuter(c *tls.Config) error {
	for field, set := range map[string]bool{
		"ClientAuth": c.ClientAuth != tls.NoClientCert, "ClientCAs": c.ClientCAs != nil, "Certificates": len(c.Certificates) > 0,
		"VerifyPeerCertificate": c.VerifyPeerCertificate != nil, "VerifyConnection": c.VerifyConnection != nil,
	} {
		if set {
			return fmt.Errorf("certmanager: %w: %s was set on the config of ServerTLS, where it has no effect: use Options, SetClientAuth, SetClientCAs or a rule", ErrInvalid, field)
		}
	}
	return nil
}

// serverConfig returns the config for handshakes; outer is the config of the program.
func (m *Manager) serverConfig(s *snapshot, outer *tls.Config) *tls.Config {
	config := newTLSConfig()
	config.NextProtos, config.MinVersion, config.MaxVersion = outer.NextProtos, outer.MinVersion, outer.MaxVersion
	config.CipherSuites, config.CurvePreferences = outer.CipherSuites, outer.CurvePreferences
	config.GetCertificate = s.getCertificate
	s.policy.askClients(config)
	config.VerifyConnection = func(state tls.ConnectionState) error { return m.verifyClient(s, state, nil) }
	config.GetEncryptedClientHelloKeys = func(*tls.ClientHelloInfo) ([]tls.EncryptedClientHelloKey, error) {
		return s.in.material.all.ECHKeys, nil
	}
	config.KeyLogWriter = m.keyLog
	config.SessionTicketsDisabled = m.options.MaxSessionAge < 0
	(&resumption{m: m, snapshot: s}).install(config)
	// This config is for handshakes that began without a ticket, and they share it. After a
	// HelloRetryRequest a client can send one all the same.
	config.UnwrapSession = func([]byte, tls.ConnectionState) (*tls.SessionState, error) { return nil, nil }
	return config
}

// verifyClient runs in every handshake, including resumed ones, which skip all other callbacks. It
// judges by the snapshot in service now, which may be newer than the one that the handshake began
// with: a peer removed in between is refused.
func (m *Manager) verifyClient(began *snapshot, state tls.ConnectionState, remote net.Addr) error {
	current := m.current.Load()
	now := clock.Now()
	peer := m.newPeer(&state, false)
	peer.pool = began.policy.clients.id // crypto/tls has verified it with these roots
	peer, err := current.policy.judge(peer, now, now)
	return m.verdict(current, peer, remote, err)
}

// ClientTLS returns a config for clients of one server name or IP address. Roots, rules and the
// client's certificate are those in service at each handshake.
//
// With an empty name the server is verified for ServerName, if set, or for the name that the
// connection asks for, which net/http and tls.Dialer set. A connection to an IP address asks for no
// name (RFC 6066 section 3), so pass the address here.
//
// All these configs of a Manager share their sessions, which are resumed while trust stays the
// same. A resumed connection has the certificate that the server had when the session began.
//
// NextProtos may be set, and EncryptedClientHelloConfigList together with MinVersion TLS 1.3, which
// crypto/tls requires. Do not change VerifyConnection: it verifies the server, which is why
// InsecureSkipVerify is set. To check more, use [Options.ServerRule].
func (m *Manager) ClientTLS(serverName string) *tls.Config {
	config := newTLSConfig()
	serverName = hostName(serverName)
	config.ServerName = serverName
	if serverName == "" {
		config.ServerName = m.ServerName()
	}
	// crypto/tls verifies with the roots that a config was made with, and not at all on resumption, so
	// VerifyConnection does all verification.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error { return m.verifyServer(state, serverName) }
	// Used in one case only: if a server declines Encrypted Client Hello and offers new keys,
	// crypto/tls verifies it with these roots, whatever is set above, and calls no callback with the
	// certificate. That connection fails anyway; the next one, with the new keys, is verified as
	// usual.
	config.RootCAs = m.RootCAs()
	config.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return m.current.Load().getClientCertificate(request)
	}
	if m.options.MaxSessionAge >= 0 {
		config.ClientSessionCache = &sessionCache{m: m, lru: m.sessions} // shared, so that sessions resume even with a config for each connection
	}
	config.KeyLogWriter = m.keyLog
	return config
}

func (m *Manager) verifyServer(state tls.ConnectionState, name string) error {
	current := m.current.Load()
	if name == "" {
		name = current.policy.serverName
	}
	if name == "" {
		name = state.ServerName
	}
	peer := m.newPeer(&state, true)
	// A rule must check the SPIFFE ID of a member of a trust domain. Without a rule any member could
	// pose as any server, so then the name decides, as for other servers.
	_, member, err := current.policy.servers.domains.Roots(peer.Certificate, true, nil)
	byRule := err == nil && member && current.policy.servers.rule.check != nil
	if name == "" && !byRule {
		return fmt.Errorf("certmanager: %w: no name to verify the server for: a connection to an IP address sends none; pass the name or address to ClientTLS", ErrUntrusted)
	}
	if err := peer.Certificate.VerifyHostname(name); err != nil && !byRule {
		return m.verdict(current, peer, nil, fmt.Errorf("%s: %w: %w", peer, ErrUntrusted,
			&tls.CertificateVerificationError{UnverifiedCertificates: peer.presented, Err: err}))
	}
	now := clock.Now()
	peer, err = current.policy.judge(peer, now, now)
	if err == nil {
		m.lastServer.Store(peer)
	}
	return m.verdict(current, peer, nil, err)
}

// offersTicket reports whether the client may want to resume a session, at a server of a maximum
// version, 0 if it has none.
func offersTicket(hello *tls.ClientHelloInfo, most uint16) bool {
	const sessionTicket, preSharedKey = 35, 41 // RFC 5077, RFC 8446 section 4.2
	if (most == 0 || most >= tls.VersionTLS13) && slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
		return slices.Contains(hello.Extensions, preSharedKey)
	}
	return slices.Contains(hello.Extensions, sessionTicket) // clients without a ticket send it empty
}
