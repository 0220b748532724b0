package certmanager

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/internal/conninfo"
	"github.com/ergotls/ergotls/internal/dn"
)

// CertificateInfo describes a certificate.
type CertificateInfo struct {
	// Subject and Issuer are formatted as in RFC 2253.
	Subject     string
	Issuer      string
	Serial      string    // hexadecimal
	Names       []string  `json:",omitempty"` // DNS names, IP addresses and URIs
	NotBefore   time.Time // first valid second
	NotAfter    time.Time // last valid second
	Fingerprint string    // SHA-256, hexadecimal
	Origin      string    `json:",omitempty"` // the file or option it came from
}

// CRLInfo describes a revocation list.
type CRLInfo struct {
	// Issuer is formatted as in RFC 2253; Number is the CRL number (RFC 5280 section 5.2.3).
	// ThisUpdate is the list's time of issue. Revoked is the number of entries. OutOfDate means that
	// NextUpdate has passed; NextUpdate is zero if the list has none.
	Issuer     string
	Number     string `json:",omitempty"`
	ThisUpdate time.Time
	NextUpdate time.Time `json:",omitzero"`
	Revoked    int
	OutOfDate  bool
}

// PeerInfo describes a peer.
type PeerInfo struct {
	CertificateInfo
	Server bool `json:",omitempty"` // a server that this program connected to

	// Remote is the peer's address and Local that of this side; both are empty for the handshake of a
	// client.
	// Connection is the ID of a connection of package meta, as in its log lines.
	Remote     string `json:",omitempty"`
	Local      string `json:",omitempty"`
	Connection string `json:",omitempty"`
}

// NewCertificateInfo describes a certificate, for the events of sources.
func NewCertificateInfo(cert *x509.Certificate, origin string) CertificateInfo {
	sum := sha256.Sum256(cert.Raw)
	return CertificateInfo{
		Subject: dn.String(cert.Subject), Issuer: dn.String(cert.Issuer), Serial: fmt.Sprintf("%x", cert.SerialNumber),
		Names: namesOf(cert), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:]), Origin: origin,
	}
}

func infosOf(cas []*x509.Certificate) (infos []CertificateInfo) {
	for _, ca := range cas {
		infos = append(infos, NewCertificateInfo(ca, ""))
	}
	return infos
}

// namesOf returns the DNS names, IP addresses and URIs of a certificate.
func namesOf(cert *x509.Certificate) []string {
	names := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	return names
}

// few lists names, shortened to fit a line.
func few(names []string) string {
	const most = 5
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

func newPeerInfo(p *Peer, remote net.Addr) *PeerInfo {
	info := &PeerInfo{Server: p.Server}
	if p.Certificate != nil {
		info.CertificateInfo = NewCertificateInfo(p.Certificate, "").bounded()
	}
	if remote != nil {
		info.Remote = remote.String()
	}
	if at, ok := remote.(conninfo.Addr); ok {
		info.Local = at.Local.String()
		if at.Connection != nil {
			info.Connection = at.Connection.String()
		}
	}
	return info
}

func newCRLInfo(l *trust.List) CRLInfo {
	info := CRLInfo{
		Issuer: dn.String(l.Issuer.Subject), ThisUpdate: l.CRL.ThisUpdate, NextUpdate: l.CRL.NextUpdate,
		Revoked: len(l.Revoked), OutOfDate: l.OutOfDate(clock.Now()),
	}
	if l.CRL.Number != nil {
		info.Number = l.CRL.Number.String()
	}
	return info
}

// Data from a peer is shortened for events, log lines and status: anyone can send a certificate
// with 80,000 names, and events may wait for a slow subscriber.
const (
	maxPeerNames = 20   // of a certificate
	maxPeerText  = 256  // bytes of a name, a subject, a serial number
	maxPeerError = 1024 // bytes of an error
)

// bounded shortens the fields that a peer has chosen.
func (c CertificateInfo) bounded() CertificateInfo {
	c.Subject, c.Issuer, c.Serial = trust.Cut(c.Subject, maxPeerText), trust.Cut(c.Issuer, maxPeerText), trust.Cut(c.Serial, maxPeerText)
	more := len(c.Names) - maxPeerNames
	names := make([]string, 0, min(len(c.Names), maxPeerNames)+1)
	for _, name := range c.Names[:cap(names)-1] {
		names = append(names, trust.Cut(name, maxPeerText))
	}
	if c.Names = names; more > 0 {
		c.Names = append(names, fmt.Sprintf("and %d more", more))
	}
	return c
}

// peerError is an error about a peer without data from the peer: the errors of crypto/tls hold its
// certificates.
type peerError struct {
	text    string
	reasons []error // sentinels of this package
}

func (e *peerError) Error() string { return e.text }

func (e *peerError) Unwrap() []error { return e.reasons }

// boundedError keeps only the text and the reasons of an error about a peer.
func boundedError(err error) error {
	if err == nil {
		return nil
	}
	short := &peerError{text: trust.Cut(dn.Printable(err.Error()), maxPeerError)}
	for _, reason := range append(refusedSentinels[:], ErrRecycled) {
		if errors.Is(err, reason) {
			short.reasons = append(short.reasons, reason)
		}
	}
	return short
}
