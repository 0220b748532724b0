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
	text  string // as it is ordered: a DNS name, a wildcard or an IP address
	fixed bool   // one of Domains
	stop  func() // ends maintain; nil for Domains

	// Guarded by state.mu.
	cert     *tls.Certificate // what is served; nil if there is none
	asked    bool             // a handshake wants it, since the last attempt began
	busy     bool             // an attempt is under way or about to be
	changed  chan struct{}    // closed and replaced when an attempt ends, or is wanted
	failures int              // in a row
	step     int              // of the back-off: failures, since the end of a certificate if that came between
	err      error            // of the last
	due      time.Time        // of the next attempt or renewal
	wanted   time.Time        // when a handshake asked for it last

	// Set by maintain, and start before it. Others read them for Status.
	unsaved atomic.Pointer[tls.Certificate] // issued, and not in the cache yet
	record  atomic.Pointer[Record]          // of DNS-PERSIST-01, as it was seen last
	ca      atomic.Pointer[ca]              // that issued last, or is asked first
	kind    atomic.Pointer[string]          // of the challenge that worked last

	// Only maintain's, and start's before it.
	looks    time.Time        // when it looks at the cache and the renewal information again
	early    *tls.Certificate // issued, and not valid yet
	unlocked bool             // without the lock an order waits for the cache no more than it must
	info     acme.RenewalInfo // of cert
	asks     time.Time        // when the CA is asked for it again
	reported map[string]bool  // the faults that last and were reported
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

func (s *state) newName(text string, fixed bool) *name {
	n := &name{text: text, fixed: fixed, busy: true, changed: make(chan struct{}), reported: make(map[string]bool)}
	n.ca.Store(s.cas[0])
	return n
}

// notify wakes who waits for the name. The caller holds mu.
func (n *name) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// notDueBefore puts the next attempt off. The caller holds mu.
func (n *name) notDueBefore(when time.Time) {
	if n.due.Before(when) {
		n.due = when
	}
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

// serving is the certificate of a name that is in service, nil if there is none.
func (s *state) serving(n *name) *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return n.cert
}

// await waits for the certificate of a name until stop, which is called with mu held, or until ctx
// ends. It returns nil if there is none.
func (s *state) await(ctx context.Context, n *name, stop func() bool) *tls.Certificate {
	for {
		s.mu.Lock()
		cert, stopped, changed := n.cert, stop(), n.changed
		s.mu.Unlock()
		switch {
		case cert != nil && clock.Now().Before(endOfService(cert.Leaf)):
			return cert
		case stopped || ctx.Err() != nil:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
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
