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
// the fields from the certificate are unverified claims.
type Peer struct {
	// Addr is the peer's address; behind a trusted PROXY header, the address in it.
	Addr net.Addr
	// Proxy is the rest of the PROXY header, nil without one. It must not be modified.
	Proxy *ProxyHeader
	// Verified is true if the peer presented a certificate that was verified in this handshake or in
	// the handshake of the session that it resumes.
	Verified bool
	// Subject is that of the leaf certificate as in RFC 2253, Serial its number in hexadecimal, and
	// NotAfter its last valid second. They and the names below are empty without a certificate.
	Subject  string
	Serial   string
	NotAfter time.Time
	// DNSNames, IPs and URIs are the leaf's subject alternative names.
	DNSNames []string
	IPs      []net.IP
	URIs     []string
	// SPIFFE is the SPIFFE ID: the only URI with the scheme spiffe (X509-SVID section 2); empty if
	// there are several.
	SPIFFE string
	// SPKI is the base64 of the SHA-256 of the leaf's public key (SubjectPublicKeyInfo), as in RFC
	// 7469's pin-sha256.
	SPKI string
	// Version is for example "TLS 1.3", empty without TLS. SNI is the server name that the client
	// asked for, ALPN the negotiated protocol. Resumed means that the handshake resumed an earlier
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

// peer returns the Peer for a TLS state, which is nil without TLS.
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
	// A client always verifies its server. A server that has verified its client has chains, unless
	// the manager performs the verification.
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

// managerVerifies reports whether the manager performs the handshakes of servers, and so verifies
// every certificate that a client presents.
func (c *tcpConnection) managerVerifies() bool {
	_, makes := c.opt.CertManager.(serverHandshaker)
	manager, asks := c.opt.CertManager.(clientAuthorizer)
	return makes && asks && manager.ClientAuth() >= tls.VerifyClientCertIfGiven
}

// connect returns the first message to an owner.
func (c *tcpConnection) connect(state *tls.ConnectionState) MessageTCPConnect {
	return MessageTCPConnect{
		ID: c.process.ID(), RemoteAddr: c.sock.RemoteAddr(), LocalAddr: c.sock.LocalAddr(), TLS: state, Peer: c.peer(state),
	}
}
