package certmanager

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/internal/conninfo"
	"github.com/ergotls/ergotls/internal/dn"
)

// Status is the state of a Manager at one time. It can be marshalled to JSON and has no key
// material.
type Status struct {
	Generation uint64    // counts the sets that were put in service, from 1
	Published  time.Time // of the set in service

	Certificates []CertificateInfo // the first is the default
	Names        int               // DNS names and wildcards served
	// Intermediates are the issuers that are served behind the leaves, each once.
	Intermediates []CertificateInfo
	ClientCAs     []CertificateInfo // those that came from files
	RootCAs       []CertificateInfo // the same; none may mean the system's roots
	CRLs          []CRLInfo         // those in use
	ECHKeys       int               // how many Encrypted Client Hello keys

	// ClientAuth is what is asked of clients, as tls.ClientAuthType prints it. ClientRule and
	// ServerRule are the names of the rules. ReportOnly says that they and the lists only report.
	ClientAuth string
	ClientRule string
	ServerRule string
	ReportOnly bool
	KeyLog     bool // SSLKEYLOGFILE is set: TLS secrets are written to that file

	ACME []OrderStatus `json:",omitempty"` // the names of ACME sources

	Warnings   []string `json:",omitempty"` // of the source, about what it has now; see Material.Warnings
	Polling    string   `json:",omitempty"` // why changes of files are found by polling alone; empty: events work, as far as is known
	ClockSteps uint64   // how often the clock was set, or the machine slept

	Drift         bool      // what the source has was rejected, and is not what is served
	LastError     string    // of the last candidate that was rejected, also after a good one
	LastErrorTime time.Time `json:",omitzero"` // zero: none was rejected

	Loads, Rejections uint64 // sets put in service, and candidates that were not
	Connections       int    // tracked and open
	Refused, Evicted  uint64 // peers
	// RefusedBy has the refused peers by the sentinel that the error wraps, such as "revoked" of
	// ErrRevoked.
	RefusedBy       map[string]uint64 `json:",omitempty"`
	Reported        uint64            // peers that ReportOnly let in
	DeclinedTickets uint64            // sessions that were not resumed because trust changed or they were too old
	DroppedEvents   uint64            // that subscribers were too slow for
}

// OrderStatus is about one name for which a source obtains certificates.
type OrderStatus struct {
	Name      string    // in lower case
	Serving   bool      // there is a certificate
	NotAfter  time.Time `json:",omitzero"`  // its end; zero without one
	Next      time.Time `json:",omitzero"`  // the renewal, or the next try
	Failures  int       `json:",omitempty"` // in a row
	Error     string    `json:",omitempty"` // of the last of them
	Unsaved   bool      `json:",omitempty"` // it could not be stored yet; after a restart it is ordered again
	CA        string    `json:",omitempty"` // the directory of the CA that issued it, or is asked first
	Challenge string    `json:",omitempty"` // the kind that proved control of the name last, such as "tls-alpn-01"

	// Record is the TXT record of DNS-PERSIST-01 that has to stand in DNS, as a line of a zone
	// file; RecordUntil is the end of the one that does, zero if it has none.
	Record      string    `json:",omitempty"`
	RecordUntil time.Time `json:",omitzero"`
}

// CertificateInfo describes a certificate.
type CertificateInfo struct {
	// Subject and Issuer are in the form of RFC 2253.
	Subject     string
	Issuer      string
	Serial      string    // hexadecimal
	Names       []string  `json:",omitempty"` // DNS names, IP addresses and URIs
	NotBefore   time.Time // its first second
	NotAfter    time.Time // its last second
	Fingerprint string    // SHA-256, hexadecimal
	Origin      string    `json:",omitempty"` // the file that it came from
}

// CRLInfo describes a revocation list.
type CRLInfo struct {
	// Issuer is in the form of RFC 2253, Number the CRL number (RFC 5280 section 5.2.3). The list
	// was made at ThisUpdate. Revoked counts the entries. OutOfDate says that NextUpdate has
	// passed; NextUpdate is zero if the list has none.
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
	Server bool `json:",omitempty"` // it is a server that this program called

	// Remote is the peer's address and Local our own; both are empty in the handshake of a client.
	// Connection is the ID of a connection of package meta, which its log lines have too.
	Remote     string `json:",omitempty"`
	Local      string `json:",omitempty"`
	Connection string `json:",omitempty"`
}

// NewCertificateInfo describes a certificate, for the events of sources.
func NewCertificateInfo(cert *x509.Certificate, origin string) CertificateInfo {
	sum := sha256.Sum256(cert.Raw)
	info := CertificateInfo{
		Subject: dn.String(cert.Subject), Issuer: dn.String(cert.Issuer), Serial: fmt.Sprintf("%x", cert.SerialNumber),
		Names: namesOf(cert), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:]), Origin: origin,
	}
	return info
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

// few lists names, as far as a line of text can.
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
		info.Local, info.Connection = at.Local.String(), at.Connection
	}
	return info
}

// Status returns the set in service and the counters.
func (m *Manager) Status() Status {
	s := m.current.Load()
	c := &m.counts
	status := Status{
		Generation: s.generation, Published: s.published,
		Names: s.names.count, ECHKeys: len(s.in.material.all.ECHKeys),
		ClientAuth: s.policy.clientAuth.String(), ClientRule: s.policy.clients.rule.String(), ServerRule: s.policy.servers.rule.String(),
		ReportOnly: s.policy.reportOnly, KeyLog: m.keyLog != nil,
		Drift: c.drift.Load(), ClockSteps: c.clockSteps.Load(),
		Loads: c.loads.Load(), Rejections: c.rejections.Load(),
		Connections: m.live.count(), Refused: c.refused.Load(), Evicted: c.evicted.Load(), Reported: c.reported.Load(),
		RefusedBy: c.refusedReasons(), DeclinedTickets: c.declinedTickets.Load(), DroppedEvents: m.events.dropped.Load(),
	}
	if why := c.polling.Load(); why != nil {
		status.Polling = m.pollingError(*why).Error()
	}
	if all := c.warnings.Load(); all != nil {
		for _, warning := range *all {
			status.Warnings = append(status.Warnings, warning.Error())
		}
	}
	for _, orders := range s.in.material.orders {
		status.ACME = append(status.ACME, orders()...)
	}
	if last := c.lastError.Load(); last != nil {
		status.LastError, status.LastErrorTime = last.text, last.when
	}
	for _, cert := range s.certs {
		status.Certificates = append(status.Certificates, NewCertificateInfo(cert.tls.Leaf, cert.origin))
	}
	for issuer, cert := range issuersOf(s.certs) {
		status.Intermediates = append(status.Intermediates, NewCertificateInfo(issuer, cert.origin))
	}
	for _, ca := range s.in.material.all.ClientCAs {
		status.ClientCAs = append(status.ClientCAs, NewCertificateInfo(ca, ""))
	}
	for _, ca := range s.in.material.all.RootCAs {
		status.RootCAs = append(status.RootCAs, NewCertificateInfo(ca, ""))
	}
	for _, l := range s.policy.crls.All() {
		status.CRLs = append(status.CRLs, newCRLInfo(l))
	}
	return status
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

func (m *Manager) loadedEvent(s *snapshot) Event {
	e := Event{Kind: Loaded, Generation: s.generation, Names: s.names.count}
	if len(s.certs) > 0 {
		info := NewCertificateInfo(s.certs[0].tls.Leaf, s.certs[0].origin)
		e.Certificate = &info
	}
	return e
}
