package acme

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/internal/clock"
)

const (
	// orderTimeout bounds an attempt while nothing is in service, minOrderTimeout in the last
	// moments of what is.
	orderTimeout    = 5 * time.Minute
	minOrderTimeout = 5 * time.Second

	// policyTimeout bounds a question to HostPolicy.
	policyTimeout = 10 * time.Second
)

// name is a name with its certificate.
type name struct {
	text  string        // as it is ordered: a DNS name, a wildcard or an IP address
	fixed bool          // one of Domains
	asked chan struct{} // capacity 1: a handshake wants it
	stop  func()        // ends maintain; nil for Domains

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

	unsaved atomic.Bool // cert is not in the cache yet; set by maintain
	saving  atomic.Bool // it is being stored for the first time

	// Only maintain's, and start's before it.
	next    time.Time        // when it looks at the cache and the renewal information again
	early   *tls.Certificate // issued, and not valid yet
	refused bool             // by HostPolicy, while cert is in service
	unread  bool             // the cache cannot be read
	told    bool             // that the certificate cannot be stored
	alone   bool             // the lock was not to be had: an order does not wait for the cache more often than it must
	foreign bool             // it was told that a certificate in the cache is of another CA
	clamped bool             // it was warned of RenewBefore
	info    renewalInfo
}

// wildcard says whether the name is one.
func (n *name) wildcard() bool { return strings.HasPrefix(n.text, "*.") }

// base is the name without the wildcard.
func (n *name) base() string { return strings.TrimPrefix(n.text, "*.") }

// file is the name as part of a file name, which may have 255 bytes with what is added to it.
func (n *name) file() string {
	const most = 150
	file := strings.NewReplacer("*", "_", ":", "-").Replace(n.text)
	if len(file) <= most {
		return file
	}
	sum := sha256.Sum256([]byte(n.text))
	return file[:most-33] + "-" + hex.EncodeToString(sum[:16])
}

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

// sni is what a CA asks for in a TLS-ALPN-01 challenge: of an address its reverse name (RFC 8738
// section 6).
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

// keepHouse stores what could not be stored, looks for what another machine got, and asks the CA
// when it wants the certificate to be renewed.
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
