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

// What a gen.CertManager may offer beyond that interface.
type (
	// serverConfigurer gives the configuration of a server, kept up to date by the manager through
	// GetConfigForClient. It is a new one each time: its NextProtos are set if the option is.
	serverConfigurer interface{ ServerTLS() *tls.Config }

	// clientConfigurer gives the configuration for connections to serverName, in the same way.
	clientConfigurer interface {
		ClientTLS(serverName string) *tls.Config
	}

	// tracker is told of every connection while it is open and ends those whose peers have lost
	// their trust. evict may be called from any goroutine and does not block; release is called at
	// the end of the connection.
	tracker interface {
		Track(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())
	}

	// sidedTracker is a tracker that is told of a connection before its handshake too, and on which
	// side of it we are: what its methods return stands for Track.
	sidedTracker interface {
		Accepting() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()))
		Dialing() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()))
	}

	// serverHandshaker makes the handshakes of servers with its configurations. It alone answers
	// the challenge of a CA, and closes that connection.
	serverHandshaker interface {
		ServerHandshake(ctx context.Context, conn *tls.Conn) error
	}

	// clientAuthorizer is the server's side of Ergo 3.2's CertAuthManager, rootHolder the client's.
	clientAuthorizer interface {
		ClientCAs() *x509.CertPool
		ClientAuth() tls.ClientAuthType
	}
	rootHolder interface{ RootCAs() *x509.CertPool }
)

// suitesTLS12 are the AEAD suites with forward secrecy (RFC 9325 section 4.2). TLS 1.3 has no
// others.
var suitesTLS12 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// serverTLS gives the configuration of a server whose certificates and trust are the manager's.
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

// withClientAuth returns a copy of config that asks for client certificates as the manager says at
// the moment. It refuses what crypto/tls would take to mean the system's roots, at which anyone
// could get a certificate.
func withClientAuth(config *tls.Config, m clientAuthorizer) (*tls.Config, error) {
	own := config.Clone()
	own.ClientAuth, own.ClientCAs = m.ClientAuth(), m.ClientCAs()
	if own.ClientAuth >= tls.VerifyClientCertIfGiven && own.ClientCAs == nil {
		return nil, fmt.Errorf("%w: CertManager: its ClientAuth verifies client certificates, but it has no ClientCAs; set them", ErrOption)
	}
	own.VerifyConnection = verifyResumed(own.ClientCAs)
	return own, nil
}

// verifyResumed verifies the peer of a resumed session against the roots of now: crypto/tls does so
// only when the session is new.
func verifyResumed(pool *x509.CertPool) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if !state.DidResume || pool == nil || len(state.PeerCertificates) == 0 {
			return nil
		}
		intermediates := x509.NewCertPool()
		for _, cert := range state.PeerCertificates[1:] {
			intermediates.AddCert(cert)
		}
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: pool, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		return err
	}
}

// acceptAnyClient makes config ask for client certificates as before, but take any.
func acceptAnyClient(config *tls.Config) {
	config.VerifyConnection, config.VerifyPeerCertificate, config.ClientCAs = nil, nil, nil
	switch config.ClientAuth {
	case tls.VerifyClientCertIfGiven:
		config.ClientAuth = tls.RequestClientCert
	case tls.RequireAndVerifyClientCert:
		config.ClientAuth = tls.RequireAnyClientCert
	}
}

// clientTLS gives the configuration of an outgoing connection, nil without TLS.
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
		name = addr.WithZone("").String() // the interface is of this machine, and in no certificate
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

// clientCertificate presents the manager's certificate of the moment, also to a server that asks
// for other issuers: its refusal then says who was refused.
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
