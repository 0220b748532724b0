package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// renew gets a certificate, or plans the next attempt.
func (s *state) renew(ctx context.Context, n *name, cert *tls.Certificate) {
	if early := n.early; early != nil && !clock.Now().Before(early.Leaf.NotBefore) {
		s.adopt(n, early)
		return
	}
	if !s.stillWanted(ctx, n, cert != nil) {
		return
	}
	s.mu.Lock()
	n.busy, n.asked = true, false
	s.mu.Unlock()
	timeout := orderTimeout
	if left := time.Until(s.startEnd); left > 0 { // a CA that hangs leaves time for its fallbacks, and New says why
		timeout = min(timeout, left-left/20)
	}
	if cert != nil {
		// A CA that hangs does not use up all the time that is left.
		timeout = min(orderTimeout, max(clock.Until(cert.Leaf.NotAfter)/2, minOrderTimeout))
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch err := s.obtain(limited, n, cert); {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, errLimit): // one line for all names: clients can ask for any number
		s.postpone(n, err)
		if !s.limited.Swap(true) {
			s.warn(n.text, fmt.Errorf("%w: %d", err, s.o.OrdersPerHour))
		}
	default:
		s.fail(n, err)
	}
}

// obtain takes what another machine got meanwhile, or else orders.
func (s *state) obtain(ctx context.Context, n *name, current *tls.Certificate) error {
	release, err := acquire(ctx, s.slots[n.fixed])
	if err != nil {
		return err
	}
	defer release()
	// Better one order too many than no certificate: what has none, or not for long, waits a third
	// of the time for the lock. With the default StartTimeout that is 20 seconds, which is longer
	// than the lease of a lock in Redis whose holder has died.
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
		if err != nil && !(current != nil && must) { // what is served shall not end since a disk is full
			return err
		}
		s.storageOK.Store(err == nil)
	}
	if !n.fixed && current == nil && !s.limit.AllowN(clock.Now(), 1) {
		return errLimit
	}
	if !n.fixed {
		s.limited.Store(false)
	}
	cert, err := s.order(ctx, n)
	if err != nil {
		return err
	}
	s.issued(n, cert)
	return nil
}

// issued stores a new certificate and puts it in service.
func (s *state) issued(n *name, cert *tls.Certificate) {
	info := certmanager.NewCertificateInfo(cert.Leaf, "ACME "+n.text)
	s.report(certmanager.Event{Kind: certmanager.Issued, Name: n.text, Certificate: &info})
	s.mu.Lock()
	n.unsaved = cert
	s.mu.Unlock()
	s.save(s.ctx, n)
	s.adopt(n, cert)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.cert == cert { // it is not ordered again at once where our clock is ahead of the CA's
		n.notDueBefore(clock.Now().Add(min(lifetime(cert.Leaf)/10, maxSuggestedWait)))
	}
}

// part limits a context to an nth part of the time that it has left.
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

// urgent says whether half of the time for the renewal has gone.
func (s *state) urgent(leaf *x509.Certificate) bool {
	window, _ := renewalWindow(lifetime(leaf), s.o.RenewBefore)
	return clock.Until(leaf.NotAfter) < window/2
}
