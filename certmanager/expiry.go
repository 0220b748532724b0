package certmanager

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// warnings returns when the coming end of a certificate is announced: 30, 14, 7 and 1
// days before it or, for short-lived certificates, at a third, a sixth, a twelfth and
// a 24th of the lifetime before it, whichever is later.
func warnings(notBefore, notAfter time.Time) []time.Time {
	const day = 24 * time.Hour
	lifetime := notAfter.Sub(notBefore)
	return []time.Time{
		notAfter.Add(-min(30*day, lifetime/3)),
		notAfter.Add(-min(14*day, lifetime/6)),
		notAfter.Add(-min(7*day, lifetime/12)),
		notAfter.Add(-min(1*day, lifetime/24)),
	}
}

// deadline is a moment at which something is to be told of a certificate or a list.
type deadline struct {
	when   time.Time
	cert   *x509.Certificate
	origin string
	list   *revocationList
}

// subject is the same for all deadlines of one certificate or list.
func (d deadline) subject() string {
	if d.list != nil {
		return string(d.list.list.Raw)
	}
	return string(d.cert.Raw)
}

func (d deadline) event() Event {
	if d.list != nil {
		return Event{Kind: CRLOutOfDate, Err: fmt.Errorf("%w: that of %s ended %s",
			ErrCRLOutOfDate, describe(d.list.issuer), d.when.Format(time.RFC3339))}
	}
	info := newCertificateInfo(d.cert, d.origin)
	if d.when.Before(d.cert.NotAfter) {
		return Event{Kind: Expiring, Certificate: &info}
	}
	return Event{Kind: Expired, Certificate: &info, Err: checkDates(d.cert, d.cert.NotAfter.Add(time.Second))}
}

// deadlines returns what is to be told of a snapshot in its life, the soonest first.
func (s *snapshot) deadlines() []deadline {
	var all []deadline
	add := func(cert *x509.Certificate, origin string, end ...time.Time) {
		for _, when := range append(warnings(cert.NotBefore, cert.NotAfter), end...) {
			all = append(all, deadline{when: when, cert: cert, origin: origin})
		}
	}
	shared := make(map[string]bool) // issuers that were added
	for _, c := range s.certs {
		if c.owner {
			add(c.tls.Leaf, c.origin) // its source takes it out of service before its end, and tells that
		} else {
			add(c.tls.Leaf, c.origin, c.tls.Leaf.NotAfter)
		}
		for _, issuer := range c.chain[1:] {
			// Peers refuse the whole chain when the first of it ends.
			if issuer.NotAfter.Before(c.tls.Leaf.NotAfter) && !shared[string(issuer.Raw)] {
				shared[string(issuer.Raw)] = true
				add(issuer, c.origin, issuer.NotAfter)
			}
		}
	}
	for _, ca := range slices.Concat(s.in.material.clientCAs.certs, s.in.material.rootCAs.certs) {
		add(ca, "CA bundle", ca.NotAfter)
	}
	for _, l := range s.trust.crls.all() {
		if !l.list.NextUpdate.IsZero() {
			all = append(all, deadline{when: l.list.NextUpdate, list: l})
		}
	}
	slices.SortStableFunc(all, func(a, b deadline) int { return a.when.Compare(b.when) })
	return all
}

// calendar tells each deadline once, also over snapshots that share certificates.
type calendar struct {
	snapshot *snapshot
	coming   []deadline
	told     map[string]time.Time // by subject, the deadline told last
}

// due returns what is to be told now, and how long until something is again. Where
// several deadlines of one subject are past, only the last is told.
func (c *calendar) due(current *snapshot, now time.Time) ([]Event, time.Duration) {
	if current != c.snapshot {
		c.snapshot, c.coming = current, current.deadlines()
		c.forget()
	}
	var past []deadline
	for len(c.coming) > 0 && now.After(c.coming[0].when) {
		past, c.coming = append(past, c.coming[0]), c.coming[1:]
	}
	var events []Event
	slices.Reverse(past)
	for _, d := range past {
		if d.when.After(c.told[d.subject()]) {
			c.told[d.subject()] = d.when
			events = append(events, d.event())
		}
	}
	if len(c.coming) == 0 {
		return events, 24 * time.Hour // nothing; any time will do
	}
	return events, c.coming[0].when.Sub(now) + time.Nanosecond
}

// forget drops what was told of certificates that are no longer in service.
func (c *calendar) forget() {
	kept := make(map[string]time.Time)
	for _, d := range c.coming {
		if when, ok := c.told[d.subject()]; ok {
			kept[d.subject()] = when
		}
	}
	c.told = kept
}

// expire tells what ends, when it does, until ctx ends.
func (m *Manager) expire(ctx context.Context) {
	var c calendar
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.published:
		case <-timer.C:
		}
		timer.Reset(m.tell(&c))
	}
}

// tell emits what is due and returns the time until something is again. The end of a certificate is due
// then, so that lookups know of it at once.
func (m *Manager) tell(c *calendar) time.Duration {
	current, now := m.current.Load(), clock.Now()
	for _, cert := range current.certs {
		cert.note(now)
	}
	events, next := c.due(current, now)
	for _, e := range events {
		e.Generation = current.generation
		m.events.emit(e)
		if e.Kind == CRLOutOfDate && m.options.RequireFreshCRLs {
			m.live.judgeAll()
		}
	}
	return next
}
