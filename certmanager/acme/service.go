package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// adopt puts a certificate of a name in service, or keeps it until it is valid.
func (s *state) adopt(n *name, cert *tls.Certificate) {
	if ahead := clock.Until(cert.Leaf.NotBefore); ahead > 0 {
		s.keepEarly(n, cert, ahead)
		return
	}
	s.mu.Lock()
	window, clamped := renewalWindow(lifetime(cert.Leaf), s.o.RenewBefore)
	if n.firstReport("RenewBefore", clamped) {
		s.warn(n.text, fmt.Errorf("RenewBefore %v is more than half of the certificate's lifetime; it is renewed %v before its end", s.o.RenewBefore, window))
	}
	// Of many names at a start ten a second ask for renewal information.
	n.asks = clock.Now().Add(time.Duration(chance() * float64(len(s.names)) * float64(100*time.Millisecond)))
	n.early, n.info, n.next = nil, acme.RenewalInfo{}, n.asks
	n.cert, n.busy, n.failures, n.step, n.err = cert, false, 0, 0, nil
	n.due = renewalTime(cert.Leaf.NotAfter, window, chance())
	s.material = nil
	n.notify()
	s.mu.Unlock()
	s.changed()
}

// keepEarly keeps a certificate that is not valid yet by this machine's clock, and orders no other.
func (s *state) keepEarly(n *name, cert *tls.Certificate, ahead time.Duration) {
	err := fmt.Errorf("%w: the certificate that the CA issued begins at %s; by the clock of this machine that is in %v. If the clock is behind, set it",
		certmanager.ErrNotYetValid, cert.Leaf.NotBefore.Format(time.RFC3339), ahead.Round(time.Second))
	first := n.early == nil || !n.early.Leaf.Equal(cert.Leaf)
	n.early = cert
	s.mu.Lock()
	n.busy, n.err, n.due = false, err, cert.Leaf.NotBefore
	n.notify()
	s.mu.Unlock()
	if first && ahead > time.Minute {
		s.warn(n.text, err)
	}
}

// fail notes that an attempt failed, and plans the next.
func (s *state) fail(n *name, err error) {
	next := s.postpone(n, err)
	s.emit(certmanager.OrderFailed, n.text, fmt.Errorf("%w; next try %s", err, next.Format(time.RFC3339)))
}

// postpone plans the next attempt after one that failed.
func (s *state) postpone(n *name, err error) (next time.Time) {
	now := clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n.failures++
	n.step++
	n.busy, n.err = false, err
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
	n.due = now.Add(delay)
	n.notify()
	return n.due
}

// getCertificate is the certificate for a name that nothing is served for, nil if there is none. It
// waits for the one that is being obtained, as long as HandshakeTimeout allows.
func (s *state) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, err := normalName(hello.ServerName)
	if err != nil {
		return nil, nil // not ours
	}
	limit := s.o.HandshakeTimeout
	if limit < 0 {
		limit = defaultHandshakeTimeout // for the policy
	}
	ctx, cancel := context.WithTimeout(contextOf(hello), limit)
	defer cancel()
	n := s.want(ctx, name)
	if _, parent, ok := strings.Cut(name, "."); n == nil && ok && (s.o.DNSPersist || s.o.DNS != nil) {
		n = s.want(ctx, "*."+parent)
	}
	for n != nil {
		s.mu.Lock()
		cert, waits, changed := n.cert, n.busy && s.o.HandshakeTimeout > 0, n.changed
		s.mu.Unlock()
		switch {
		case cert != nil && clock.Now().Before(endOfService(cert.Leaf)):
			return cert, nil
		case !waits: // the last attempt failed; the next is some time away
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-s.ctx.Done():
			return nil, nil
		case <-changed:
		}
	}
	return nil, nil
}

// want tells the name's goroutine that a handshake asks for it, and starts it for a name that
// is new. It returns nil for a name that is not this source's, or cannot be obtained now.
func (s *state) want(ctx context.Context, text string) *name {
	s.mu.Lock()
	n := s.names[text]
	s.mu.Unlock()
	if n == nil && !s.allows(ctx, text) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = s.names[text]; n == nil {
		if s.closing || !s.makeRoom() {
			return nil
		}
		n = s.newName(text, false)
		ctx, stop := context.WithCancel(s.ctx)
		n.stop = stop
		s.names[text] = n
		s.maintaining.Go(func() { s.maintain(ctx, n) })
	}
	n.wanted, n.asked = clock.Now(), true
	if n.cert == nil && !n.busy && !n.wanted.Before(n.due) {
		n.busy = true
		n.notify()
	}
	return n
}

// makeRoom drops the name that nobody asked for the longest time, if there are too many. The caller
// holds mu.
func (s *state) makeRoom() bool {
	var oldest *name
	count := 0
	for _, n := range s.names {
		if n.fixed {
			continue
		}
		if count++; !n.busy && (oldest == nil || n.wanted.Before(oldest.wanted)) {
			oldest = n
		}
	}
	if count < s.o.MaxNames {
		return true
	}
	if oldest == nil {
		return false
	}
	s.drop(oldest)
	return true
}

// drop forgets a name that is not one of Domains. What is in the cache stays there. The caller
// holds mu.
func (s *state) drop(n *name) {
	if s.names[n.text] == n {
		delete(s.names, n.text)
	}
	n.stop()
	n.busy = false
	n.notify()
}
