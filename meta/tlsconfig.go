package meta

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/internal/sni"
)

// Optional methods of a gen.CertManager.
type (
	// serverConfigurer returns the configuration of a server, which the manager keeps up to date
	// through GetConfigForClient. Each call returns a new one, because its NextProtos may be set.
	serverConfigurer interface{ ServerTLS() *tls.Config }

	// clientConfigurer likewise returns the configuration for connections to serverName.
	clientConfigurer interface {
		ClientTLS(serverName string) *tls.Config
	}

	// tracker tracks open connections and ends those whose peers are no longer trusted. evict may be
	// called from any goroutine and does not block; release is called when the connection ends.
	tracker interface {
		Track(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())
	}

	// sidedTracker is a tracker that is also told of a connection before its handshake, by one method
	// for each side. Their result is called instead of Track.
	sidedTracker interface {
		Accepting() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()))
		Dialing() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()))
	}

	// serverHandshaker performs the handshakes of servers with its configurations. It answers the
	// challenge of a CA by itself and closes that connection.
	serverHandshaker interface {
		ServerHandshake(ctx context.Context, conn *tls.Conn) error
	}

	// clientAuthorizer is the server side of Ergo 3.2's CertAuthManager, rootHolder the client side.
	clientAuthorizer interface {
		ClientCAs() *x509.CertPool
		ClientAuth() tls.ClientAuthType
	}
	rootHolder interface{ RootCAs() *x509.CertPool }
)

// suitesTLS12 are the AEAD suites with forward secrecy (RFC 9325 section 4.2). TLS 1.3 has only
// such suites.
var suitesTLS12 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// serverTLS returns the configuration of a server with the certificates and roots of the manager.
func serverTLS(manager gen.CertManager, nextProtos []string) (*tls.Config, error) {
	if m, ok := manager.(serverConfigurer); ok {
		config := m.ServerTLS()
		if len(nextProtos) > 0 {
			config.NextProtos = nextProtos
		}
		return config, nil
	}
	config := &tls.Config{
		GetCertificate: manager.GetCertificateFunc(),
		NextProtos:     nextProtos,
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   suitesTLS12,
	}
	base := config.Clone()
	authorizer, authorizes := manager.(clientAuthorizer)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if err := sni.Check(hello.ServerName); err != nil {
			return nil, err
		}
		if !authorizes {
			return base, nil
		}
		return withClientAuth(base, authorizer)
	}
	var err error
	if authorizes {
		_, err = withClientAuth(base, authorizer)
	}
	return config, err
}

// withClientAuth returns a copy of config that requests client certificates as the manager
// currently does. It refuses nil ClientCAs, for which crypto/tls would use the system's roots,
// which issue certificates to anyone.
func withClientAuth(config *tls.Config, m clientAuthorizer) (*tls.Config, error) {
	own := config.Clone()
	own.ClientAuth, own.ClientCAs = m.ClientAuth(), m.ClientCAs()
	switch {
	case own.ClientAuth < tls.VerifyClientCertIfGiven:
	case own.ClientCAs == nil:
		return nil, fmt.Errorf("%w: CertManager: its ClientAuth verifies client certificates, but it has no ClientCAs; set them", ErrOption)
	default:
		own.SessionTicketsDisabled = true // crypto/tls would resume a session whose client it no longer trusts
	}
	return own, nil
}

// acceptAnyClient makes config request client certificates as before, but accept any.
func acceptAnyClient(config *tls.Config) {
	config.VerifyConnection, config.VerifyPeerCertificate, config.ClientCAs = nil, nil, nil
	switch config.ClientAuth {
	case tls.VerifyClientCertIfGiven:
		config.ClientAuth = tls.RequestClientCert
	case tls.RequireAndVerifyClientCert:
		config.ClientAuth = tls.RequireAnyClientCert
	}
}

// clientTLS returns the configuration of an outgoing connection, nil without TLS.
func clientTLS(o *TCPConnectionOptions) *tls.Config {
	if o.CertManager == nil {
		return nil
	}
	name := o.ServerName
	if m, ok := o.CertManager.(interface{ ServerName() string }); ok && name == "" {
		name = m.ServerName()
	}
	name = cmp.Or(name, o.Host)
	if addr, err := netip.ParseAddr(name); err == nil {
		name = addr.WithZone("").String() // the zone names an interface of this machine and is in no certificate
	}
	var config *tls.Config
	if m, ok := o.CertManager.(clientConfigurer); ok {
		config = m.ClientTLS(name)
	} else {
		config = &tls.Config{
			ServerName:           name,
			MinVersion:           tls.VersionTLS12,
			CipherSuites:         suitesTLS12,
			GetClientCertificate: clientCertificate(o.CertManager),
		}
		if m, ok := o.CertManager.(rootHolder); ok {
			config.RootCAs = m.RootCAs()
		}
	}
	if len(o.NextProtos) > 0 {
		config.NextProtos = o.NextProtos
	}
	if o.InsecureSkipVerify {
		config = config.Clone()
		config.InsecureSkipVerify = true
		config.VerifyConnection, config.VerifyPeerCertificate = nil, nil
	}
	return config
}

// clientCertificate presents the manager's current certificate, even to a server that asks for
// other issuers: its refusal then names the client.
func clientCertificate(manager gen.CertManager) func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert := manager.GetCertificate()
		anyIssuer := *request
		anyIssuer.AcceptableCAs = nil
		if len(cert.Certificate) == 0 || anyIssuer.SupportsCertificate(&cert) != nil {
			return &tls.Certificate{}, nil
		}
		return &cert, nil
	}
}
