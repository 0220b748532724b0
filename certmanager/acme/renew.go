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

const (
	// orderTimeout limits an attempt while no certificate is in service, minOrderTimeout is the limit
	// shortly before one expires.
	orderTimeout    = 5 * time.Minute
	minOrderTimeout = 5 * time.Second
)

// renew obtains a certificate, or schedules the next attempt.
func (s *state) renew(ctx context.Context, n *name) {
	cert := s.serving(n)
	if !s.stillWanted(ctx, n, cert != nil) {
		return
	}
	s.mu.Lock()
	n.busy, n.asked = true, false
	s.mu.Unlock()
	switch err := s.obtain(ctx, n, cert); {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, errLimit): // one line for all names: clients can ask for any number
		s.postpone(n, err)
		s.limited.Do(func() { s.warn(n.text, fmt.Errorf("%w: %d", err, s.o.OrdersPerHour)) })
	default:
		s.fail(n, err)
	}
}

// attemptTimeout returns how long an attempt may take.
func (s *state) attemptTimeout(current *tls.Certificate) time.Duration {
	if current != nil { // a CA that hangs must not use up all the remaining time
		return min(orderTimeout, max(clock.Until(current.Leaf.NotAfter)/2, minOrderTimeout))
	}
	if left := time.Until(s.startEnd); left > 0 { // it leaves time for its fallbacks, and New says why
		return min(orderTimeout, left-left/20)
	}
	return orderTimeout
}

// obtain loads a certificate that another machine obtained meanwhile, or orders one.
func (s *state) obtain(ctx context.Context, n *name, current *tls.Certificate) error {
	waiting := ctx
	if !n.fixed && current == nil { // names that clients ask for must not wait in memory without a limit
		limited, cancel := context.WithTimeout(ctx, orderTimeout)
		defer cancel()
		waiting = limited
	}
	release, err := acquire(waiting, s.slots[place{n.fixed, current != nil}])
	if err != nil {
		return fmt.Errorf("waiting for other orders: %w", err)
	}
	defer release()
	ctx, stop := context.WithTimeout(ctx, s.attemptTimeout(current)) // without that wait
	defer stop()
	// An extra order is better than no certificate: a name without one, or with one that expires soon,
	// waits a third of the time for the lock. With the default StartTimeout that is 20 seconds, longer
	// than the lease of a Redis lock whose holder has died.
	must, parts := current == nil || s.urgent(current.Leaf), 1
	if must {
		parts = 3
	}
	limited, cancel := part(ctx, parts)
	defer cancel()
	unlock, err := s.lock(limited, s.cas[0].certKey(n))
	n.unlocked = err != nil
	switch {
	case err == nil:
		defer unlock()
	case !must || ctx.Err() != nil:
		return err
	default:
		s.emit(certmanager.CacheFailed, n.text, err)
	}
	if (err == nil || current == nil) && s.loadNewer(ctx, n, current) {
		return nil
	}
	if !s.storageOK.Load() {
		err := s.tryStorage(ctx)
		if err != nil && !(current != nil && must) { // a full disk must not let a served certificate expire
			return err
		}
		s.storageOK.Store(err == nil)
	}
	if !n.fixed && current == nil && !s.limit.AllowN(clock.Now(), 1) {
		return errLimit
	}
	cert, err := s.order(ctx, n)
	if err != nil {
		return err
	}
	s.issued(ctx, n, cert)
	return nil
}

// issued stores a new certificate and puts it in service. A cache that hangs uses only a part of
// the attempt's remaining time, so that the served certificate does not expire meanwhile.
func (s *state) issued(ctx context.Context, n *name, cert *tls.Certificate) {
	info := certmanager.NewCertificateInfo(cert.Leaf, "ACME "+n.text)
	s.report(certmanager.Event{Kind: certmanager.Issued, Name: n.text, Certificate: &info})
	n.unsaved.Store(cert)
	n.earliest = clock.Now().Add(minAge(cert.Leaf))
	s.save(ctx, n)
	s.adopt(n, cert)
}

// adopt puts a certificate of a name in service. If it is not valid yet by this machine's clock, it
// stays in the cache until then, and no other is ordered.
func (s *state) adopt(n *name, cert *tls.Certificate) {
	if ahead := clock.Until(cert.Leaf.NotBefore); ahead > 0 {
		err := fmt.Errorf("%w: the certificate that the CA issued begins at %s; by the clock of this machine that is in %v. If the clock is behind, set it",
			certmanager.ErrNotYetValid, cert.Leaf.NotBefore.Format(time.RFC3339), ahead.Round(time.Second))
		s.mu.Lock()
		n.ended(err, cert.Leaf.NotBefore)
		s.mu.Unlock()
		if ahead > time.Minute {
			s.emitOnce(certmanager.Warning, n, "clock", err)
		}
		return
	}
	s.emitOnce(certmanager.Warning, n, "clock", nil)
	window, clamped := renewalWindow(lifetime(cert.Leaf), s.o.RenewBefore)
	var tooEarly error
	if clamped {
		tooEarly = fmt.Errorf("RenewBefore %v is more than half of the certificate's lifetime; it is renewed %v before its end", s.o.RenewBefore, window)
	}
	s.emitOnce(certmanager.Warning, n, "RenewBefore", tooEarly)
	s.mu.Lock()
	// At a start with many names, ten a second ask for renewal information.
	n.asks = clock.Now().Add(time.Duration(chance() * float64(len(s.names)) * float64(100*time.Millisecond)))
	n.info, n.looks = acme.RenewalInfo{}, n.asks
	n.cert, n.expired, n.failures, n.step, s.material = cert, nil, 0, 0, nil
	n.ended(nil, renewalTime(cert.Leaf.NotAfter, window, chance()))
	n.notDueBefore(n.earliest)
	s.mu.Unlock()
	s.changed()
}

// fail records a failed attempt, and schedules the next.
func (s *state) fail(n *name, err error) {
	next := s.postpone(n, err)
	s.emit(certmanager.OrderFailed, n.text, fmt.Errorf("%w; next try %s", err, next.Format(time.RFC3339)))
}

// postpone schedules the next attempt after a failed one.
func (s *state) postpone(n *name, err error) (next time.Time) {
	now := clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n.failures++
	n.step++
	remaining := time.Duration(0)
	if n.cert != nil {
		remaining = n.cert.Leaf.NotAfter.Sub(now)
	}
	after := retryAfterOf(err)
	if errors.Is(err, errUnusable) {
		after = max(after, unusableRetry)
	}
	delay := retryDelay(n.step, isInvalid(err) || errors.Is(err, errOrderLost), remaining, after, chance())
	if errors.Is(err, errRecord) {
		delay = min(delay, maxRecordRetry)
	}
	n.ended(err, now.Add(delay))
	return n.due
}

// part limits a context to an nth part of its remaining time.
func part(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(end)/time.Duration(n))
}

var errLimit = errors.New("acme.Source.OrdersPerHour is reached by names that clients asked for")

// acquire waits for a place in slots.
func acquire(ctx context.Context, slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// urgent reports whether half of the time for the renewal has passed.
func (s *state) urgent(leaf *x509.Certificate) bool {
	window, _ := renewalWindow(lifetime(leaf), s.o.RenewBefore)
	return clock.Until(leaf.NotAfter) < window/2
}

// expiresSoon reports whether the certificate in service must be renewed soon.
func (s *state) expiresSoon(n *name) bool {
	cert := s.serving(n)
	return cert != nil && s.urgent(cert.Leaf)
}
