package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

const (
	// orderTimeout bounds an attempt while nothing is in service, minOrderTimeout in the last moments
	// of what is.
	orderTimeout    = 5 * time.Minute
	minOrderTimeout = 5 * time.Second

	// policyTimeout bounds a question to HostPolicy that no handshake waits for.
	policyTimeout = 10 * time.Second
)

// name is a name with its certificate.
type name struct {
	text  string        // as it is ordered: a DNS name, a wildcard or an IP address
	fixed bool          // one of Domains
	asked chan struct{} // capacity 1: a handshake wants it
	stop  func()        // ends tend; nil for Domains

	// Guarded by state.mu.
	cert     *tls.Certificate // what is served; nil if there is none
	busy     bool             // an attempt is under way or about to be
	changed  chan struct{}    // closed and replaced when an attempt ends
	failures int              // in a row
	step     int              // of the back-off: failures, since the end of a certificate if that came between
	err      error            // of the last
	due      time.Time        // of the next attempt or renewal
	expiry   *time.Timer      // takes cert out of service
	record   *Record          // of DNS-PERSIST-01, as it was seen last
	ca       *ca              // that issued last, or is asked first
	last     string           // the kind of challenge that worked last
	wanted   time.Time        // when a handshake asked for it last

	unsaved atomic.Bool // cert is not in the cache yet; set by tend
	saving  atomic.Bool // it is being stored for the first time

	// Only tend's, and start's before it.
	next       time.Time        // when it looks at the cache and the renewal information again
	early      *tls.Certificate // issued, and not valid yet
	refused    bool             // by HostPolicy, while cert is in service
	unread     bool             // the cache cannot be read
	told       bool             // that the certificate cannot be stored
	foreign    bool             // it was told that a certificate in the cache is of another CA
	clamped    bool             // it was warned of RenewBefore
	info       renewalInfo
	unfinished *unfinished
}

// wildcard says whether the name is one.
func (n *name) wildcard() bool { return strings.HasPrefix(n.text, "*.") }

// base is the name without the wildcard.
func (n *name) base() string { return strings.TrimPrefix(n.text, "*.") }

// file is the name as part of a file name.
func (n *name) file() string { return strings.NewReplacer("*", "_", ":", "-").Replace(n.text) }

// addr is the name as an IP address.
func (n *name) addr() (netip.Addr, bool) {
	addr, err := netip.ParseAddr(n.text)
	return addr, err == nil
}

func (n *name) identifier() acme.Identifier {
	if _, ok := n.addr(); ok {
		return acme.Identifier{Type: "ip", Value: n.text}
	}
	return acme.Identifier{Type: "dns", Value: n.text}
}

// sni is what a CA asks for in a TLS-ALPN-01 challenge: of an address its reverse name (RFC 8738 section 6).
func (n *name) sni() string {
	if addr, ok := n.addr(); ok {
		return reverseName(addr)
	}
	return n.text
}

// renewalInfo is what the CA said about the renewal of a certificate.
type renewalInfo struct {
	at         time.Time // of the next question
	start, end time.Time
	id         string // names the certificate to a CA that offers such information
}

func (s *state) newName(text string, fixed bool) *name {
	return &name{text: text, ca: s.cas[0], fixed: fixed, busy: true, asked: make(chan struct{}, 1), changed: make(chan struct{})}
}

// notify wakes who waits for the name. The caller holds mu.
func (n *name) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// tend obtains, stores and renews the certificate of one name until ctx ends, or until a name that is not one of Domains
// is not allowed any more.
func (s *state) tend(ctx context.Context, n *name) {
	if !n.fixed {
		if cert := s.load(ctx, n); cert != nil {
			s.adopt(n, cert)
		}
	}
	for ctx.Err() == nil {
		s.mu.Lock()
		cert, due, failures, changed := n.cert, n.due, n.failures, n.changed
		s.mu.Unlock()
		now := clock.Now()
		switch {
		case cert != nil && !now.Before(endOfService(cert.Leaf)):
			s.expire(n, cert)
		case !now.Before(due):
			if !s.renew(ctx, n, cert, failures) {
				return
			}
		case !now.Before(n.next):
			s.keepHouse(ctx, n, cert, failures)
		default:
			next := due
			if n.next.Before(next) {
				next = n.next
			}
			sleepUnless(ctx, next.Sub(now), changed)
		}
	}
	if n.unsaved.Load() {
		s.save(ctx, n)
	}
}

// keepHouse stores what could not be stored, looks for what another machine got, and asks the CA when it wants the
// certificate to be renewed.
func (s *state) keepHouse(ctx context.Context, n *name, cert *tls.Certificate, failures int) {
	var leaf *x509.Certificate
	if cert != nil {
		leaf = cert.Leaf
	}
	n.next = clock.Now().Add(housekeeping(leaf))
	switch {
	case n.unsaved.Load():
		s.save(ctx, n)
	case s.shared() && (cert != nil || failures > 0) && s.look(ctx, n, cert):
		return
	}
	if cert != nil && !clock.Now().Before(n.info.at) {
		s.askWhen(ctx, n, leaf)
	}
}

// renew gets a certificate, or plans the next attempt. It returns false when the name is known no longer.
func (s *state) renew(ctx context.Context, n *name, cert *tls.Certificate, failures int) (known bool) {
	if early := n.early; early != nil && !clock.Now().Before(early.Leaf.NotBefore) {
		s.adopt(n, early)
		return true
	}
	wanted, known := s.stillWanted(ctx, n, cert != nil, failures)
	if !wanted {
		return known
	}
	s.mu.Lock()
	n.busy = true
	s.mu.Unlock()
	select { // an earlier wish is what is being fulfilled now
	case <-n.asked:
	default:
	}
	timeout := orderTimeout
	if left := time.Until(s.startEnd); left > 0 { // so that a CA that hangs leaves time for its fallbacks
		timeout = min(timeout, left)
	}
	if cert != nil {
		// A CA that hangs does not use up all the time that is left.
		timeout = min(orderTimeout, max(clock.Until(cert.Leaf.NotAfter)/2, minOrderTimeout))
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch err := s.obtain(limited, n, cert); {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, errLimit): // one line for all names: strangers make as many as they like
		s.postpone(n, err)
		if !s.limited.Swap(true) {
			s.warn(n.text, fmt.Errorf("%w: %d", err, s.o.OrdersPerHour))
		}
	default:
		s.fail(n, err)
	}
	return true
}

// stillWanted decides about the next order for a name that a handshake asked for. One that
// failed is ordered again when a handshake asks again. When the policy has changed its mind the
// name is known no longer, but not before the end of what is in service: the policy may be
// mistaken, when its database is away for example, and is asked again.
func (s *state) stillWanted(ctx context.Context, n *name, serving bool, failures int) (wanted, known bool) {
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
	err := s.o.HostPolicy(limited, n.text)
	if ctx.Err() != nil {
		return false, true
	}
	first := err != nil && !n.refused
	n.refused = err != nil
	switch {
	case err == nil:
		return true, true
	case serving:
		err = fmt.Errorf("acme.Source.HostPolicy refuses a name that is served; it is not renewed: %w", err)
		s.postpone(n, err)
		if first {
			s.warn(n.text, err)
		}
		return false, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(n)
	return false, false
}

// obtain takes what another machine got meanwhile, or else orders.
func (s *state) obtain(ctx context.Context, n *name, current *tls.Certificate) error {
	release, err := s.turn(ctx, n)
	if err != nil {
		return err
	}
	defer release()
	// Better one order too many than no certificate: what has none, or not for long, does not need the lock.
	must := current == nil || s.urgent(current.Leaf)
	unlock, err := s.lockOrTry(ctx, n, must)
	switch {
	case err == nil:
		defer unlock()
	case !must || ctx.Err() != nil:
		return err
	default:
		s.emit(certmanager.CacheFailed, n.text, err)
	}
	if (err == nil || current == nil) && s.look(ctx, n, current) {
		return nil
	}
	if !s.storageOK.Load() {
		if err := s.tryStorage(ctx); err != nil {
			return err
		}
		s.storageOK.Store(true)
	}
	if !n.fixed && !s.limit.AllowN(clock.Now(), 1) {
		return errLimit
	}
	if !n.fixed {
		s.limited.Store(false)
	}
	cert, err := s.order(ctx, n)
	if err != nil {
		return err
	}
	n.unsaved.Store(true)
	n.saving.Store(true)
	s.adopt(n, cert)
	info := certmanager.NewCertificateInfo(cert.Leaf, "ACME "+n.text)
	s.report(certmanager.Event{Kind: certmanager.Issued, Name: n.text, Certificate: &info})
	s.save(s.ctx, n)
	s.mu.Lock()
	n.saving.Store(false)
	n.notify()
	s.mu.Unlock()
	return nil
}

var errLimit = errors.New("acme.Source.OrdersPerHour is reached by names that clients asked for")

// turn waits for a place among the orders under way. Domains have places of their own.
func (s *state) turn(ctx context.Context, n *name) (release func(), err error) {
	slots := s.slots[n.fixed]
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

// lockOrTry waits for the lock until ctx ends or, where there is something to be done without it, a quarter as long.
func (s *state) lockOrTry(ctx context.Context, n *name, try bool) (unlock func(), err error) {
	if end, ok := ctx.Deadline(); ok && try {
		limited, cancel := context.WithTimeout(ctx, time.Until(end)/4)
		defer cancel()
		ctx = limited
	}
	return s.lock(ctx, s.cas[0].certKey(n))
}

// look takes a certificate from the cache that is newer than the one in service.
func (s *state) look(ctx context.Context, n *name, current *tls.Certificate) bool {
	if current != nil {
		limited, cancel := context.WithTimeout(ctx, housekeeping(current.Leaf))
		defer cancel()
		ctx = limited
	}
	cert := s.load(ctx, n)
	if cert == nil || current != nil && !cert.Leaf.NotAfter.After(current.Leaf.NotAfter) {
		return false
	}
	n.unsaved.Store(false)
	s.adopt(n, cert)
	return true
}

// askWhen asks the CA when a certificate is to be renewed.
func (s *state) askWhen(ctx context.Context, n *name, leaf *x509.Certificate) {
	ctx, cancel := context.WithTimeout(ctx, max(min(lifetime(leaf)/30, 30*time.Second), time.Second))
	defer cancel()
	var info acme.RenewalInfo
	c, err := n.ca.connect(ctx, false)
	if err == nil {
		info, err = call(ctx, "renewal information", func(ctx context.Context) (acme.RenewalInfo, error) { return c.renewal.GetRenewalInfo(ctx, leaf) })
	}
	now := clock.Now()
	switch {
	case errors.Is(err, acme.ErrUnsupported):
		n.info = renewalInfo{at: now.Add(maxRetryAfter)}
		return
	case err != nil:
		n.info.at = now.Add(max(min(lifetime(leaf)/30, time.Hour), time.Second))
		return // our own time stands
	}
	again := 6 * time.Hour
	if info.RetryAfter != nil {
		again = time.Until(*info.RetryAfter)
	}
	window := info.SuggestedWindow
	changed := !window.Start.Equal(n.info.start) || !window.End.Equal(n.info.end)
	n.info = renewalInfo{at: now.Add(max(min(again, maxRetryAfter), time.Second)), start: window.Start, end: window.End, id: info.UniqueIdentifier}
	s.mu.Lock()
	defer s.mu.Unlock()
	if changed && n.failures == 0 {
		before, _ := renewalWindow(lifetime(leaf), s.o.RenewBefore)
		n.due = suggestedTime(window.Start, window.End, leaf, before, chance())
	}
}
