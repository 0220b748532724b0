package certmanager

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

const (
	// orderTimeout bounds an attempt while nothing is in service, minOrderTimeout in the last moments
	// of what is.
	orderTimeout    = 5 * time.Minute
	minOrderTimeout = 5 * time.Second

	// lookEvery bounds how old a certificate can be that another machine has replaced.
	lookEvery = time.Minute

	// maxSleep bounds how late it is noticed that the time is another, where polls are further apart.
	maxSleep = time.Minute

	// policyTimeout bounds a question to HostPolicy that no handshake waits for.
	policyTimeout = 10 * time.Second

	// maxSaveRetry bounds the time between attempts to store a certificate.
	maxSaveRetry = 10 * time.Minute
)

func chance() float64 { return rand.Float64() }

// tend looks after one name until ctx ends, or until a name that is not one of Domains
// is not allowed any more.
func (s *acmeState) tend(ctx context.Context, n *acmeName) {
	if !n.fixed {
		if cert := s.load(ctx, n); cert != nil {
			s.adopt(n, cert)
		}
	}
	for ctx.Err() == nil {
		now := clock.Now()
		cert, due, failures, changed := s.view(n)
		looks := s.shared() && (cert != nil || failures > 0)
		switch {
		case cert != nil && !now.Before(endOfService(cert.Leaf)):
			s.expire(n, cert)
		case !now.Before(due):
			wanted, known := s.stillWanted(ctx, n, cert != nil, failures)
			if !known {
				return
			}
			if wanted {
				s.attempt(ctx, n, cert)
			}
		case n.unsaved.Load() && !now.Before(n.saveAt):
			s.save(ctx, n, cert)
		case looks && !now.Before(n.lookAt):
			s.look(ctx, n, cert)
		case cert != nil && !now.Before(n.info.at):
			s.askWhen(ctx, n, cert.Leaf)
		default:
			next := due
			if n.unsaved.Load() && n.saveAt.Before(next) {
				next = n.saveAt
			}
			if looks && n.lookAt.Before(next) {
				next = n.lookAt
			}
			if cert != nil && n.info.at.Before(next) {
				next = n.info.at
			}
			sleepUnless(ctx, min(next.Sub(now), maxSleep), changed)
		}
	}
	if n.unsaved.Load() {
		cert, _, _, _ := s.view(n)
		s.save(ctx, n, cert)
	}
}

func (s *acmeState) view(n *acmeName) (cert *tls.Certificate, due time.Time, failures int, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.cert, n.due, n.failures, n.changed
}

func sleep(ctx context.Context, d time.Duration) { sleepUnless(ctx, d, nil) }

// sleepUnless also ends when changed is closed.
func sleepUnless(ctx context.Context, d time.Duration, changed <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-changed:
	}
}

// stillWanted decides about the next order for a name that a handshake asked for. One that
// failed is ordered again when a handshake asks again. When the policy has changed its mind the
// name is known no longer, but not before the end of what is in service: the policy may be
// mistaken, when its database is away for example, and is asked again.
func (s *acmeState) stillWanted(ctx context.Context, n *acmeName, serving bool, failures int) (wanted, known bool) {
	if n.fixed {
		return true, true
	}
	if !serving && failures > 0 {
		select {
		case <-n.asked:
		case <-ctx.Done():
			return false, false
		}
	}
	limited, cancel := context.WithTimeout(ctx, policyTimeout)
	defer cancel()
	err := s.o.HostPolicy(limited, n.name)
	if ctx.Err() != nil {
		return false, true
	}
	first := err != nil && !n.refused
	n.refused = err != nil
	switch {
	case err == nil:
		return true, true
	case serving:
		err = fmt.Errorf("ACME.HostPolicy refuses a name that is served; it is not renewed: %w", err)
		s.postpone(n, err)
		if first {
			s.emit(Warning, n.name, err)
		}
		return false, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, n.name)
	n.busy = false
	n.notify()
	return false, false
}

// attempt obtains a certificate, or plans the next attempt. What is in service is cert.
func (s *acmeState) attempt(ctx context.Context, n *acmeName, cert *tls.Certificate) {
	s.mu.Lock()
	n.busy = true
	s.mu.Unlock()
	select { // an earlier wish is what is being fulfilled now
	case <-n.asked:
	default:
	}
	timeout := orderTimeout
	if cert != nil {
		// A CA that hangs does not use up all the time that is left.
		timeout = min(orderTimeout, max(clock.Until(cert.Leaf.NotAfter)/2, minOrderTimeout))
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := s.obtain(limited, n, cert); err != nil && ctx.Err() == nil {
		s.fail(n, err)
	}
}

// obtain takes what another machine got meanwhile, or else orders.
func (s *acmeState) obtain(ctx context.Context, n *acmeName, current *tls.Certificate) error {
	select {
	case s.orders <- struct{}{}:
		defer func() { <-s.orders }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// Better one order too many than no certificate: what has none, or not for long, does not need the lock.
	must := current == nil || s.urgent(current.Leaf)
	unlock, err := s.lockOrTry(ctx, n.name, must)
	switch {
	case err == nil:
		defer unlock()
	case !must || ctx.Err() != nil:
		return err
	default:
		s.emit(CacheFailed, n.name, err)
	}
	if (err == nil || current == nil) && s.look(ctx, n, current) {
		return nil
	}
	cert, err := s.order(ctx, n)
	if err != nil {
		return err
	}
	n.saves = 0
	n.unsaved.Store(true)
	s.adopt(n, cert)
	s.rest(n, cert.Leaf)
	info := newCertificateInfo(cert.Leaf, "ACME "+n.name)
	s.m.emit(Event{Kind: Issued, Name: n.name, Certificate: &info})
	s.save(s.ctx, n, cert)
	return nil
}

// urgent says whether half of the time for the renewal has gone.
func (s *acmeState) urgent(leaf *x509.Certificate) bool {
	window, _ := renewalWindow(leaf.NotAfter.Sub(leaf.NotBefore), s.o.RenewBefore)
	return clock.Until(leaf.NotAfter) < window/2
}

// rest keeps a name whose new certificate seems to be due at once, since our clock is ahead of the CA's, from being ordered
// again and again.
func (s *acmeState) rest(n *acmeName, leaf *x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	earliest := clock.Now().Add(min(leaf.NotAfter.Sub(leaf.NotBefore)/10, maxSuggestedWait))
	if n.due.Before(earliest) {
		n.due = earliest
	}
}

// lockOrTry waits for the lock until ctx ends or, where there is something to be done without it, a quarter as long.
func (s *acmeState) lockOrTry(ctx context.Context, name string, try bool) (unlock func(), err error) {
	if end, ok := ctx.Deadline(); ok && try {
		limited, cancel := context.WithTimeout(ctx, time.Until(end)/4)
		defer cancel()
		ctx = limited
	}
	return s.lock(ctx, certCacheKey(name, s.o.Key))
}

// look takes a certificate from the cache that is newer than the one in service.
func (s *acmeState) look(ctx context.Context, n *acmeName, current *tls.Certificate) bool {
	if current != nil {
		every := max(min(current.Leaf.NotAfter.Sub(current.Leaf.NotBefore)/30, lookEvery), time.Second)
		n.lookAt = clock.Now().Add(every)
		limited, cancel := context.WithTimeout(ctx, every)
		defer cancel()
		ctx = limited
	} else {
		n.lookAt = clock.Now().Add(time.Second)
	}
	cert := s.load(ctx, n)
	if cert == nil || current != nil && !cert.Leaf.NotAfter.After(current.Leaf.NotAfter) {
		return false
	}
	n.unsaved.Store(false)
	s.adopt(n, cert)
	return true
}

// save stores what is served from memory, and plans the next attempt if it cannot.
func (s *acmeState) save(ctx context.Context, n *acmeName, cert *tls.Certificate) {
	if cert == nil { // it ended before it could be stored
		n.unsaved.Store(false)
		return
	}
	data, err := encodeCached(*cert)
	if err == nil { // also while the manager is closed: an order is dear
		err = s.put(context.WithoutCancel(ctx), certCacheKey(n.name, s.o.Key), data)
	}
	if err == nil {
		n.unsaved.Store(false)
		s.saveAccount(context.WithoutCancel(ctx))
		return
	}
	n.saves++
	n.saveAt = clock.Now().Add(min(retryDelay(n.saves, false, 0, 0, chance()), maxSaveRetry))
	s.emit(CacheFailed, n.name, err)
}

// shared says whether other machines use the cache.
func (s *acmeState) shared() bool {
	_, ok := s.o.Cache.(locker)
	return ok
}

func (s *acmeState) lock(ctx context.Context, key string) (unlock func(), err error) {
	if l, ok := s.o.Cache.(locker); ok {
		return l.Lock(ctx, key)
	}
	return func() {}, nil
}
