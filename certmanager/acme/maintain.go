package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// maintain obtains, stores and renews the certificate of one name until ctx ends, or until a name
// that is not one of Domains is not allowed any more.
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

// next is what is to be done for a name now, or how long nothing is to be done unless it changes.
func (s *state) next(n *name) (do func(context.Context, *name), wait time.Duration, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := clock.Now()
	switch {
	case now.Before(n.due) && now.Before(n.looks):
		return nil, min(n.due.Sub(now), n.looks.Sub(now)), n.changed
	case now.Before(n.due):
		return s.refresh, 0, nil
	case n.cert == nil && !n.fixed && n.failures > 0 && !n.asked: // it is ordered again when a handshake asks again
		return nil, maxRetryAfter, n.changed
	}
	return s.renew, 0, nil
}

// refresh stores what could not be stored, looks for what another machine got, and asks the CA
// when it wants the certificate to be renewed.
func (s *state) refresh(ctx context.Context, n *name) {
	cert := s.serving(n)
	n.looks = clock.Now().Add(refreshInterval(cert))
	if n.unsaved.Load() != nil {
		s.save(ctx, n)
	} else if s.shared() && n.early == nil && s.loadNewer(ctx, n, cert) {
		return
	}
	if cert != nil && !clock.Now().Before(n.asks) {
		s.askRenewalInfo(ctx, n, cert.Leaf)
	}
}

// loadNewer takes a certificate from the cache that is newer than the one in service.
func (s *state) loadNewer(ctx context.Context, n *name, current *tls.Certificate) bool {
	if current != nil {
		limited, cancel := context.WithTimeout(ctx, refreshInterval(current))
		defer cancel()
		ctx = limited
	}
	cert := s.load(ctx, n)
	if cert == nil || current != nil && !cert.Leaf.NotAfter.After(current.Leaf.NotAfter) {
		return false
	}
	n.unsaved.Store(nil)
	s.adopt(n, cert)
	return true
}

// askRenewalInfo asks the CA when a certificate is to be renewed.
func (s *state) askRenewalInfo(ctx context.Context, n *name, leaf *x509.Certificate) {
	ctx, cancel := context.WithTimeout(ctx, max(min(lifetime(leaf)/30, 30*time.Second), time.Second))
	defer cancel()
	var info acme.RenewalInfo
	c, err := n.ca.Load().connect(ctx, false)
	if err == nil {
		info, err = call(ctx, "renewal information", func(ctx context.Context) (acme.RenewalInfo, error) { return c.renewal.GetRenewalInfo(ctx, leaf) })
	}
	again := 6 * time.Hour
	switch {
	case errors.Is(err, acme.ErrUnsupported):
		again = maxRetryAfter
	case err != nil:
		again = min(lifetime(leaf)/30, time.Hour)
	case info.RetryAfter != nil:
		again = time.Until(*info.RetryAfter)
	}
	n.asks = clock.Now().Add(max(min(again, maxRetryAfter), time.Second))
	if err != nil {
		return // our own time stands
	}
	same := info.SameWindow(n.info)
	n.info = info
	s.mu.Lock()
	defer s.mu.Unlock()
	if !same && n.failures == 0 {
		before, _ := renewalWindow(lifetime(leaf), s.o.RenewBefore)
		n.due = suggestedTime(info.SuggestedWindow.Start, info.SuggestedWindow.End, leaf, before, chance())
	}
}

// clockEvery is how often the clock is looked at, and clockStep what is a step of it.
const (
	clockEvery = 2 * time.Second
	clockStep  = 2 * time.Second
)

// watchClock takes certificates out of service when they end, whatever else goes on. When the clock
// was set, or the machine slept, which timers have not noticed, all names look at it again.
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

// expire takes out of service what has ended, and returns how long nothing else ends.
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
		n.cert, n.step = nil, 0 // it is missing from now on: no time for the long waits of an old failure
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
		if n.cert == nil && errors.Is(n.err, certmanager.ErrExpired) {
			n.due = clock.Now() // the certificate that was issued may be valid now
		}
		n.notify()
	}
}
