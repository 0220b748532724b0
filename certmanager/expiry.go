package certmanager

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// warnings returns when the expiry of a certificate is announced: 30, 14, 7 and 1 days before it
// or, for short-lived certificates, a third, a sixth, a twelfth and a 24th of the lifetime before
// it, whichever is later.
func warnings(notBefore, notAfter time.Time) []time.Time {
	const day = 24 * time.Hour
	lifetime := max(0, notAfter.Sub(notBefore)) // Sub returns at most 292 years
	return []time.Time{
		notAfter.Add(-min(30*day, lifetime/3)),
		notAfter.Add(-min(14*day, lifetime/6)),
		notAfter.Add(-min(7*day, lifetime/12)),
		notAfter.Add(-min(1*day, lifetime/24)),
	}
}

// dated is a certificate or revocation list whose expiry is reported.
type dated struct {
	raw   []byte
	when  []time.Time // when to report, in order
	event func(when time.Time) Event
}

func datedCertificate(cert *x509.Certificate, origin string, renewed bool) dated {
	when := warnings(cert.NotBefore, cert.NotAfter)
	if !renewed { // the source removes a renewed one before its expiry
		when = append(when, cert.NotAfter)
	}
	return dated{cert.Raw, when, func(when time.Time) Event {
		info := NewCertificateInfo(cert, origin)
		if when.Before(cert.NotAfter) {
			return Event{Kind: Expiring, Certificate: &info}
		}
		return Event{Kind: Expired, Certificate: &info, Err: trust.CheckDates(cert, cert.NotAfter.Add(time.Second))}
	}}
}

func datedList(l *trust.List) dated {
	return dated{l.CRL.Raw, []time.Time{l.CRL.NextUpdate}, func(when time.Time) Event {
		return Event{Kind: CRLOutOfDate, Err: fmt.Errorf("%w: that of %s ended %s", ErrCRLOutOfDate, trust.Describe(l.Issuer), when.Format(time.RFC3339))}
	}}
}

// dated returns the certificates and lists of a snapshot that can expire.
func (s *snapshot) dated() []dated {
	var all []dated
	for _, c := range s.certs {
		all = append(all, datedCertificate(c.tls.Leaf, c.origin, c.renewed))
		for _, issuer := range c.chain[1:] {
			// Peers refuse the whole chain when the first certificate in it expires.
			if issuer.NotAfter.Before(c.tls.Leaf.NotAfter) {
				all = append(all, datedCertificate(issuer, c.origin, false))
			}
		}
	}
	domains := slices.Collect(maps.Values(s.in.material.all.TrustDomains))
	for _, ca := range slices.Concat(append(domains, s.policy.clients.known, s.policy.servers.known)...) {
		all = append(all, datedCertificate(ca, "CA bundle", false))
	}
	for _, l := range s.policy.crls.All() {
		if !l.CRL.NextUpdate.IsZero() {
			all = append(all, datedList(l))
		}
	}
	return all
}

// expire reports expiries when they are due, until ctx ends.
func (m *Manager) expire(ctx context.Context) {
	var reported map[string]time.Time // when a certificate or list, by its bytes, was last due and reported
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.published:
		case <-timer.C:
		}
		var next time.Duration
		reported, next = m.reportDue(reported)
		timer.Reset(next)
	}
}

// reportDue emits the due events and returns the time until the next, at most a day. It reports
// each moment once, even if several snapshots share a certificate. If several moments of one
// certificate have passed, it reports only the last.
func (m *Manager) reportDue(before map[string]time.Time) (reported map[string]time.Time, next time.Duration) {
	now := clock.Now()
	if m.current.Load().policy.crls.Begun(now) {
		m.change(false, func(*inputs) {})
	}
	current := m.current.Load()
	reported, next = make(map[string]time.Time), 24*time.Hour
	if begins := current.policy.crls.Begins; !begins.IsZero() {
		next = min(next, max(clock.Until(begins), time.Second))
	}
	for _, d := range current.dated() {
		var past time.Time
		for _, when := range d.when {
			if !now.After(when) { // valid up to and including the second of NotAfter
				next = min(next, clock.Until(when)+time.Nanosecond)
				break
			}
			past = when
		}
		last := before[string(d.raw)]
		if here, again := reported[string(d.raw)]; again { // it is served in several places
			last = here
		}
		if past.After(last) {
			last = past
			event := d.event(past)
			m.emit(event)
			if event.Kind == CRLOutOfDate && m.options.RequireFreshCRLs {
				m.live.judgeAll()
			}
		}
		if !last.IsZero() {
			reported[string(d.raw)] = last
		}
	}
	return reported, next
}
