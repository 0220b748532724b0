package certmanager

// Getters and setters: gen.CertManager and the methods of Ergo's CertAuthManager.

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// Update puts a certificate in service as the default and for its names, until the source has a new
// one for one of these names. A certificate that fails the checks is not used; this is reported as
// an event.
func (m *Manager) Update(cert tls.Certificate) {
	c, err := newCertificate(cert, "Update")
	if err != nil {
		m.reject(err)
		return
	}
	m.change(true, func(in *inputs) { in.update = c })
}

// GetCertificateFunc returns a function for tls.Config.GetCertificate. It does not answer ACME
// challenges; see [Manager.ServerHandshake].
func (m *Manager) GetCertificateFunc() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return m.current.Load().getCertificate(hello)
	}
}

// GetCertificate returns the default certificate, or the zero value if there is none.
func (m *Manager) GetCertificate() tls.Certificate {
	if s := m.current.Load(); len(s.certs) > 0 {
		return s.certs[0].tls
	}
	return tls.Certificate{}
}

// SetClientCAs replaces the CAs that clients are verified with, including those of
// Material.TrustDomains; nil restores those of the source.
// Like every setter it applies to new handshakes at once, and closes open connections whose peer is
// no longer accepted. The pool must not be modified afterwards.
func (m *Manager) SetClientCAs(pool *x509.CertPool) {
	m.change(false, func(in *inputs) { in.clientCAs = pool })
}

// ClientCAs returns the CAs in service for clients, nil if there are none. It must not
// be modified.
func (m *Manager) ClientCAs() *x509.CertPool { return m.current.Load().policy.clients.cas }

// SetRootCAs replaces the CAs that servers are verified with, including those of
// Material.TrustDomains; nil restores those of the source. The pool must not be modified
// afterwards.
func (m *Manager) SetRootCAs(pool *x509.CertPool) {
	m.change(false, func(in *inputs) { in.rootCAs = pool })
}

// RootCAs returns the CAs in service for servers; nil is the system's roots.
func (m *Manager) RootCAs() *x509.CertPool { return m.current.Load().policy.servers.cas }

// SetClientAuth replaces [Options.ClientAuth]. A type that does not verify certificates is not
// used; this is reported as an event. If clients must be verified and there is no CA bundle, all
// clients are refused until SetClientCAs sets one.
func (m *Manager) SetClientAuth(auth tls.ClientAuthType) {
	if err := checkClientAuth(auth); err != nil {
		m.reject(fmt.Errorf("SetClientAuth: %w", err))
		return
	}
	m.change(false, func(in *inputs) { in.clientAuth, in.clientAuthSet = auth, true })
}

// ClientAuth returns what servers ask of clients.
func (m *Manager) ClientAuth() tls.ClientAuthType { return m.current.Load().policy.clientAuth }

// SetServerName sets the name that ClientTLS("") verifies servers for; empty means the name that
// the connection asks for.
func (m *Manager) SetServerName(name string) {
	m.change(false, func(in *inputs) { in.serverName = hostName(name) })
}

// ServerName returns the name set by SetServerName, in ASCII.
func (m *Manager) ServerName() string { return m.current.Load().policy.serverName }

// SetClientRule replaces [Options.ClientRule]. Open connections are verified again, even if the
// rule has the same name as before or is the same rule, because it may decide differently now. On
// error the previous rule stays.
func (m *Manager) SetClientRule(rule Rule) error {
	return m.put(m.ctx, false, func(in *inputs) { in.clientRule, in.ruled = rule, in.ruled+1 })
}

// SetTicketKeys replaces [Options.TicketKeys]: the first key encrypts new tickets, all decrypt.
// Without keys it does nothing. If a key is all zero, it returns an error and changes nothing.
func (m *Manager) SetTicketKeys(keys [][32]byte) error {
	if err := checkTicketKeys(keys); err != nil {
		return fmt.Errorf("certmanager: SetTicketKeys: %w", err)
	}
	if len(keys) > 0 {
		m.tickets.SetSessionTicketKeys(keys)
	}
	return nil
}

// Done returns a channel that is closed when the Manager is closed. It is closed from the start for
// a Manager not made by New.
func (m *Manager) Done() <-chan struct{} {
	if m.ctx == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return m.ctx.Done()
}

// Ready returns nil if a server can use the Manager, else [ErrClosed], or [ErrNoCertificate] if
// there is no certificate and the source is not obtaining one. Package meta calls it before it
// listens.
func (m *Manager) Ready() error {
	if m.ctx == nil || m.ctx.Err() != nil {
		return ErrClosed
	}
	if s := m.current.Load(); len(s.certs) == 0 && !s.in.material.late {
		return fmt.Errorf("%w for a server: give the source one, for example Files.Cert and Files.Key, or call Update first", ErrNoCertificate)
	}
	return nil
}
