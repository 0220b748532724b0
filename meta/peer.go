package meta

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"net"
	"time"

	"github.com/ergotls/ergotls/internal/dn"
)

// Peer identifies the other side of a connection, for log lines and rules. If Verified is false,
// the fields from the certificate are only claims of the peer.
type Peer struct {
	// Addr is the peer's address; behind a trusted PROXY header, the address in it.
	Addr net.Addr
	// Proxy is the rest of the PROXY header, nil without one. It must not be modified.
	Proxy *ProxyHeader
	// Verified is true if the peer presented a certificate that was verified in this handshake or
	// in the one that it resumes.
	Verified bool
	// Subject of the leaf certificate is in the form of RFC 2253, Serial in hexadecimal, and
	// NotAfter is its last second; empty without a certificate, as are the names below.
	Subject  string
	Serial   string
	NotAfter time.Time
	// DNSNames, IPs and URIs are the leaf's subject alternative names.
	DNSNames []string
	IPs      []net.IP
	URIs     []string
	// SPIFFE is the SPIFFE ID: the one URI with the scheme spiffe (X509-SVID section 2); empty if
	// there are more.
	SPIFFE string
	// SPKI is the base64 of the SHA-256 of the leaf's public key (SubjectPublicKeyInfo), as in RFC
	// 7469's pin-sha256.
	SPKI string
	// Version is for example "TLS 1.3", empty without TLS. SNI is the server name that the client
	// asked for, ALPN the negotiated protocol. Resumed says that the handshake resumed an earlier
	// session.
	Version string
	SNI     string
	ALPN    string
	Resumed bool
}

// String returns the peer's address and, if it has a certificate, its name.
func (p Peer) String() string {
	text := "unknown address"
	if p.Addr != nil {
		text = p.Addr.String()
	}
	switch {
	case p.SPIFFE != "":
		text += " (" + p.SPIFFE + ")"
	case p.Subject != "":
		text += " (" + p.Subject + ")"
	}
	return text
}

// peer says who the peer is, from its TLS state; nil without TLS.
func (c *tcpConnection) peer(state *tls.ConnectionState) Peer {
	p := Peer{Addr: c.sock.RemoteAddr(), Proxy: c.proxy}
	if state == nil {
		return p
	}
	p.Version = tls.VersionName(state.Version)
	p.SNI, p.ALPN, p.Resumed = state.ServerName, state.NegotiatedProtocol, state.DidResume
	if len(state.PeerCertificates) == 0 {
		return p
	}
	leaf := state.PeerCertificates[0]
	// A client has verified its server. What a server did shows in the chains, unless the manager has
	// verified the client by itself.
	p.Verified = !c.opt.InsecureSkipVerify && (c.server == nil || len(state.VerifiedChains) > 0 || c.managerVerifies())
	p.Subject, p.Serial, p.NotAfter = dn.String(leaf.Subject), leaf.SerialNumber.Text(16), leaf.NotAfter
	p.DNSNames, p.IPs = leaf.DNSNames, leaf.IPAddresses
	spiffe := 0
	for _, uri := range leaf.URIs {
		p.URIs = append(p.URIs, uri.String())
		if uri.Scheme == "spiffe" {
			p.SPIFFE = uri.String()
			spiffe++
		}
	}
	if spiffe != 1 {
		p.SPIFFE = ""
	}
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	p.SPKI = base64.StdEncoding.EncodeToString(spki[:])
	return p
}

// managerVerifies says that the manager makes the handshakes of servers, and verifies every
// certificate that a client shows.
func (c *tcpConnection) managerVerifies() bool {
	_, makes := c.opt.CertManager.(serverHandshaker)
	manager, asks := c.opt.CertManager.(clientAuthorizer)
	return makes && asks && manager.ClientAuth() >= tls.VerifyClientCertIfGiven
}

// connect is what an owner hears first.
func (c *tcpConnection) connect(state *tls.ConnectionState) MessageTCPConnect {
	return MessageTCPConnect{
		ID: c.process.ID(), RemoteAddr: c.sock.RemoteAddr(), LocalAddr: c.sock.LocalAddr(), TLS: state, Peer: c.peer(state),
	}
}
