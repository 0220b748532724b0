package certmanager

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/internal/conninfo"
)

// Peer is the other side of a connection, with a verified chain, as passed to a [Rule].
type Peer struct {
	// Certificate is the leaf. Chains are the verified chains, leaf first.
	Certificate *x509.Certificate
	Chains      [][]*x509.Certificate

	// Server is true if the peer is a server that this program connected to.
	Server bool

	presented []*x509.Certificate
	pool      string // the id of the side that verified Chains
}

// newPeer returns the peer of a handshake. A client without a certificate has none here either.
func (m *Manager) newPeer(state *tls.ConnectionState, server bool) *Peer {
	p := &Peer{Server: server, Chains: state.VerifiedChains, presented: state.PeerCertificates}
	if len(p.presented) > 0 {
		p.Certificate = p.presented[0]
	}
	// crypto/tls shares the certificates that servers present, so the same certificate has the same
	// pointer as in the last handshake, and its signatures need not be verified again. Roots, dates
	// and revocation are checked again.
	if last := m.lastServer.Load(); server && last != nil && last.Certificate == p.Certificate {
		p.Chains, p.pool = last.Chains, last.pool
	}
	return p
}

// String returns the peer's subject and serial number.
func (p *Peer) String() string {
	if p.Certificate == nil {
		return "a peer without a certificate"
	}
	return trust.Describe(p.Certificate)
}

// begins returns the time from which a chain is valid; zero without chains.
func (p *Peer) begins() time.Time { return trust.Begin(p.Chains) }

// expires returns when the last of the chains expires; zero without chains.
func (p *Peer) expires() time.Time { return trust.End(p.Chains) }

// verdict reports a refusal and returns it, or nil if ReportOnly applies.
func (m *Manager) verdict(current *snapshot, peer *Peer, remote net.Addr, err error) error {
	if err == nil {
		return nil
	}
	tolerated := current.policy.tolerates(err)
	if tolerated {
		m.counts.reported.Add(1)
	} else {
		m.counts.refuse(err)
	}
	m.emit(Event{Kind: PeerRefused, Peer: newPeerInfo(peer, remote), ReportOnly: tolerated, Err: err})
	if tolerated {
		return nil
	}
	return fmt.Errorf("certmanager: %w", err)
}

// ReportRefused is for servers that perform the handshakes of ServerTLS themselves. Pass it the
// error of a handshake and the client's address. It counts and reports a client that crypto/tls
// itself refused, because its CA is unknown, its certificate is expired or not yet valid, or it
// sent none; the Manager already knows all other refused peers. It ignores nil and other errors.
func (m *Manager) ReportRefused(err error, remote net.Addr) {
	if conninfo.NoCertificate(err) {
		_ = m.verdict(m.current.Load(), &Peer{}, remote, fmt.Errorf("%w: the client showed no certificate", ErrUntrusted))
		return
	}
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &refused) || len(refused.UnverifiedCertificates) == 0 || errors.Is(err, ErrUntrusted) {
		return
	}
	peer := &Peer{Certificate: refused.UnverifiedCertificates[0]}
	current := m.current.Load()
	if expired := trust.CheckDates(peer.Certificate, clock.Now()); expired != nil {
		_ = m.verdict(current, peer, remote, expired)
		return
	}
	err = trust.Explain(fmt.Errorf("%s: %w: %w", peer, ErrUntrusted, refused.Err), refused.UnverifiedCertificates, current.policy.clients.known)
	_ = m.verdict(current, peer, remote, err)
}
