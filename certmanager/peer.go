package certmanager

import (
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// Peer is the other side of a connection as a [Rule] sees it, its chain verified.
type Peer struct {
	// Certificate is the leaf. Chains are the verified chains, leaf first.
	Certificate *x509.Certificate
	Chains      [][]*x509.Certificate

	// Server is true if the peer is a server that this program called.
	Server bool

	presented []*x509.Certificate
	pool      string // the id of the side that Chains were verified with
}

// newPeer takes the peer of a handshake. A client without a certificate has none here
// either.
func (m *Manager) newPeer(state *tls.ConnectionState, server bool) *Peer {
	p := &Peer{Server: server, Chains: state.VerifiedChains, presented: state.PeerCertificates}
	if len(p.presented) > 0 {
		p.Certificate = p.presented[0]
	}
	// crypto/tls shares the certificates that its clients are shown, so that one known
	// from the last handshake is the same pointer, and its signatures need not be
	// verified again. Roots, dates and revocation are.
	if last := m.lastServer.Load(); server && last != nil && last.Certificate == p.Certificate {
		p.Chains, p.pool = last.Chains, last.pool
	}
	return p
}

// String names the peer by its subject and serial.
func (p *Peer) String() string {
	if p.Certificate == nil {
		return "a peer without a certificate"
	}
	return trust.Describe(p.Certificate)
}

// begins returns when the first of the chains begins; zero without chains.
func (p *Peer) begins() time.Time { return trust.Begin(p.Chains) }

// expires returns when the last of the chains ends; zero without chains.
func (p *Peer) expires() time.Time { return trust.End(p.Chains) }
