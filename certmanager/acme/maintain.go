package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// maintain obtains, stores and renews the certificate of one name until ctx ends, or until a name
// that is not one of Domains is no longer allowed.
func (s *state) maintain(ctx context.Context, n *name) {
	if !n.fixed {
		if cert := s.load(ctx, n); cert != nil {
			s.adopt(n, cert)
		}
	}
	s.removeAtStart(ctx, n)
	for ctx.Err() == nil {
		do, wait, changed := s.next(n)
		if do != nil {
			do(ctx, n)
		} else {
			sleepUnless(ctx, wait, changed)
		}
	}
	s.save(ctx, n)
}

// next returns what to do for a name now, or how long to wait unless changed is closed.
func (s *state) next(n *name) (do func(context.Context, *name), wait time.Duration, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock.Now()
	switch {
	case now.Before(n.due) && now.Before(n.looks):
		return nil, min(n.due.Sub(now), n.looks.Sub(now)), n.changed
	case now.Before(n.due):
		return s.refresh, 0, nil
	case n.cert == nil && !n.fixed && n.failures > 0 && !n.asked: // ordered again only when a handshake asks again
		return nil, maxRetryAfter, n.changed
	}
	return s.renew, 0, nil
}

// refresh stores an unsaved certificate, loads one that another machine obtained, and asks the CA
// when to renew.
func (s *state) refresh(ctx context.Context, n *name) {
	cert := s.serving(n)
	n.looks = clock.Now().Add(refreshInterval(cert))
	if n.unsaved.Load() != nil {
		s.save(ctx, n)
	} else if s.shared() && s.loadNewer(ctx, n, cert) {
		return
	}
	if cert != nil && !clock.Now().Before(n.asks) {
		s.askRenewalInfo(ctx, n, cert.Leaf)
	}
}

// loadNewer loads a certificate from the cache if it is newer than the one in service.
func (s *state) loadNewer(ctx context.Context, n *name, current *tls.Certificate) bool {
	if current != nil {
		limited, cancel := context.WithTimeout(ctx, refreshInterval(current))
		defer cancel()
		ctx = limited
	}
	cert := s.load(ctx, n)
	if cert == nil || current != nil && !newer(cert, current) {
		return false
	}
	n.unsaved.Store(nil)
	s.adopt(n, cert)
	return true
}

// askRenewalInfo asks the CA when to renew a certificate.
func (s *state) askRenewalInfo(ctx context.Context, n *name, leaf *x509.Certificate) {
	ctx, cancel := context.WithTimeout(ctx, max(min(lifetime(leaf)/30, 30*time.Second), time.Second))
	defer cancel()
	var info acme.RenewalInfo
	c, err := n.ca.Load().connect(ctx, false)
	if err == nil {
		info, err = call(ctx, "renewal information", func(ctx context.Context) (acme.RenewalInfo, error) { return c.renewal.GetRenewalInfo(ctx, leaf) })
	}
	again := 6 * time.Hour
	if info.RetryAfter != nil {
		again = time.Until(*info.RetryAfter)
	}
	n.asks = clock.Now().Add(max(min(again, maxRetryAfter), time.Second))
	if err != nil {
		return // our own time applies
	}
	same := info.SameWindow(n.info)
	n.info = info
	s.mu.Lock()
	defer s.mu.Unlock()
	if !same && n.failures == 0 {
		before, _ := renewalWindow(lifetime(leaf), s.o.RenewBefore)
		n.due = suggestedTime(info.SuggestedWindow.Start, info.SuggestedWindow.End, leaf, before, chance())
		n.notDueBefore(n.earliest)
	}
}

// clockEvery is how often the clock is checked, clockStep the smallest deviation that counts as a
// step.
const (
	clockEvery = 2 * time.Second
	clockStep  = 2 * time.Second
)

// watchClock removes certificates from service when they expire, independently of all else. After
// the clock was set or the machine slept, which timers do not notice, it makes all names check the
// time again.
func (s *state) watchClock(ctx context.Context) {
	wall, awake := clock.Now(), time.Now()
	for ctx.Err() == nil {
		sleep(ctx, s.expire())
		step := clock.Now().Round(0).Sub(wall.Round(0)) - time.Since(awake)
		wall, awake = clock.Now(), time.Now()
		if step.Abs() > clockStep {
			s.clockStepped()
		}
	}
}

// expire removes expired certificates from service, and returns the time until the next expiry.
func (s *state) expire() time.Duration {
	next := clockEvery
	var events []certmanager.Event
	s.mu.Lock()
	for _, n := range s.names {
		if n.cert == nil {
			continue
		}
		leaf := n.cert.Leaf
		if left := clock.Until(endOfService(leaf)); left > 0 {
			next = min(next, left)
			continue
		}
		n.cert, n.expired, n.step = nil, n.cert, 0 // without a certificate the long waits of old failures no longer apply
		n.notify()
		info := certmanager.NewCertificateInfo(leaf, "ACME "+n.text)
		events = append(events, certmanager.Event{Kind: certmanager.Expired, Name: n.text, Certificate: &info,
			Err: fmt.Errorf("%w: on %s", certmanager.ErrExpired, leaf.NotAfter.Format(time.RFC3339))})
	}
	if len(events) > 0 {
		s.material = nil
		defer s.changed()
	}
	s.mu.Unlock()
	for _, e := range events {
		s.report(e)
	}
	return next
}

func (s *state) clockStepped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.names {
		if n.cert == nil && n.expired != nil && s.check(n.expired, n.text) == nil {
			n.due = clock.Now() // it is loaded from the cache
		}
		n.notify()
	}
}
