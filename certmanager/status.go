package certmanager

import (
	"errors"
	"sync/atomic"
	"time"
)

// Status is the state of a Manager at one time. It can be marshaled to JSON and has no key
// material.
type Status struct {
	Generation uint64    // the number of the set in service, counted from 1
	Published  time.Time // when that set was put in service

	Certificates []CertificateInfo // the first is the default
	Names        int               // DNS names and wildcards served
	// Intermediates are the certificates served after the leaves, each once.
	Intermediates []CertificateInfo
	ClientCAs     []CertificateInfo // those that came from files
	RootCAs       []CertificateInfo // likewise; empty may mean the system's roots
	CRLs          []CRLInfo         // those in use
	ECHKeys       int               // number of Encrypted Client Hello keys

	// ClientAuth is the String of the tls.ClientAuthType in use. ClientRule and ServerRule are the
	// names of the rules. ReportOnly means that rules and revocation lists only report.
	ClientAuth string
	ClientRule string
	ServerRule string
	ReportOnly bool
	KeyLog     bool // SSLKEYLOGFILE is set: TLS secrets are written to that file

	ACME []OrderStatus `json:",omitempty"` // the names of ACME sources

	Warnings   []string `json:",omitempty"` // of the source about its current contents; see Material.Warnings
	Polling    string   `json:",omitempty"` // why file changes are found only by polling; empty: no failure of file events is known
	ClockSteps uint64   // how often the clock was set, or the machine slept

	Drift         bool      // the current contents of the source were rejected and are not in service
	LastError     string    // of the last rejected candidate, even after a good one
	LastErrorTime time.Time `json:",omitzero"` // zero: none was rejected

	Loads, Rejections uint64 // sets put in service, and rejected candidates
	Connections       int    // tracked and open
	Refused, Evicted  uint64 // peers
	// RefusedBy counts refused peers by the sentinel that the error wraps, such as "revoked" for
	// ErrRevoked.
	RefusedBy       map[string]uint64 `json:",omitempty"`
	Reported        uint64            // peers accepted because of ReportOnly
	DeclinedTickets uint64            // sessions not resumed because trust changed or they were too old
	DroppedEvents   uint64            // dropped because subscribers were too slow
}

// OrderStatus is the state of one name for which a source obtains certificates.
type OrderStatus struct {
	Name      string    // in lower case
	OnDemand  bool      `json:",omitempty"` // clients asked for it; it is not one of Domains
	Serving   bool      // there is a certificate
	NotAfter  time.Time `json:",omitzero"`  // its expiry; zero without a certificate
	Next      time.Time `json:",omitzero"`  // of the renewal or the next attempt
	Failures  int       `json:",omitempty"` // consecutive failures
	Error     string    `json:",omitempty"` // of the last failure
	Unsaved   bool      `json:",omitempty"` // the certificate is not stored yet; a restart would order it again
	CA        string    `json:",omitempty"` // the directory URL of the CA that issued it, or that is tried first
	Challenge string    `json:",omitempty"` // the kind of challenge that last proved control of the name, such as "tls-alpn-01"

	// Record is the TXT record of DNS-PERSIST-01 that must be in DNS, as a line of a zone file.
	// RecordUntil is the expiry of the record found there, zero if it has none.
	Record      string    `json:",omitempty"`
	RecordUntil time.Time `json:",omitzero"`
}

// Status returns the set in service and the counters.
func (m *Manager) Status() Status {
	s := m.current.Load()
	c := &m.counts
	last := c.lastError.Load()
	status := Status{
		Generation: s.generation, Published: s.published,
		ClientCAs: infosOf(s.policy.clients.known), RootCAs: infosOf(s.policy.servers.known),
		Names: s.names.count, ECHKeys: len(s.in.material.all.ECHKeys),
		ClientAuth: s.policy.clientAuth.String(), ClientRule: s.policy.clients.rule.String(), ServerRule: s.policy.servers.rule.String(),
		ReportOnly: s.policy.reportOnly, KeyLog: m.keyLog != nil,
		Drift: c.drift.Load(), LastError: last.text, LastErrorTime: last.when, ClockSteps: c.clockSteps.Load(),
		Loads: c.loads.Load(), Rejections: c.rejections.Load(),
		Connections: m.live.count(), Refused: c.refused.Load(), Evicted: c.evicted.Load(), Reported: c.reported.Load(),
		RefusedBy: make(map[string]uint64), DeclinedTickets: c.declinedTickets.Load(), DroppedEvents: m.events.dropped.Load(),
	}
	if why := c.polling.Load(); why != nil {
		status.Polling = m.pollingError(*why).Error()
	}
	for i, reason := range RefusedReasons {
		if n := c.refusedBy[i].Load(); n > 0 {
			status.RefusedBy[reason] = n
		}
	}
	for _, warning := range *c.warnings.Load() {
		status.Warnings = append(status.Warnings, warning.Error())
	}
	for _, orders := range s.in.material.orders {
		status.ACME = append(status.ACME, orders()...)
	}
	for _, cert := range s.certs {
		status.Certificates = append(status.Certificates, NewCertificateInfo(cert.tls.Leaf, cert.origin))
	}
	for issuer, cert := range issuersOf(s.certs) {
		status.Intermediates = append(status.Intermediates, NewCertificateInfo(issuer, cert.origin))
	}
	for _, l := range s.policy.crls.All() {
		status.CRLs = append(status.CRLs, newCRLInfo(l))
	}
	return status
}

func (s *snapshot) loaded() Event {
	e := Event{Kind: Loaded, Generation: s.generation, Names: s.names.count}
	if len(s.certs) > 0 {
		info := NewCertificateInfo(s.certs[0].tls.Leaf, s.certs[0].origin)
		e.Certificate = &info
	}
	return e
}

// counts are the counters of a Manager since New.
type counts struct {
	loads, rejections, refused, reported, evicted, declinedTickets atomic.Uint64
	refusedBy                                                      [len(refusedSentinels)]atomic.Uint64

	drift      atomic.Bool
	polling    atomic.Pointer[error]   // why the source does not notice changes although it should
	polled     atomic.Bool             // one of the sources does not notice changes
	warnings   atomic.Pointer[[]error] // of the source
	clockSteps atomic.Uint64
	lastError  atomic.Pointer[lastError]
}

// RefusedReasons are the keys of Status.RefusedBy. An error that wraps several of the sentinels
// counts for the first.
var RefusedReasons = []string{
	ErrExpired.Error(), ErrNotYetValid.Error(), ErrRevoked.Error(), ErrCRLOutOfDate.Error(), ErrNotAuthorized.Error(), ErrUntrusted.Error(),
}

var refusedSentinels = [...]error{ErrExpired, ErrNotYetValid, ErrRevoked, ErrCRLOutOfDate, ErrNotAuthorized, ErrUntrusted}

// refuse counts a peer that is refused.
func (c *counts) refuse(err error) {
	c.refused.Add(1)
	for i, sentinel := range refusedSentinels {
		if errors.Is(err, sentinel) {
			c.refusedBy[i].Add(1)
			return
		}
	}
}

type lastError struct {
	when time.Time
	text string
}
