package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// policyTimeout limits a call of HostPolicy.
const policyTimeout = 10 * time.Second

// getCertificate returns the certificate for a name that no other certificate covers, nil if there
// is none. It waits up to HandshakeTimeout for one that is being obtained.
func (s *state) getCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, err := normalName(hello.ServerName)
	if err != nil {
		return nil, nil // not a name of this source
	}
	limit := s.o.HandshakeTimeout
	if limit < 0 {
		limit = policyTimeout // only for the call of the policy
	}
	ctx, cancel := context.WithTimeout(contextOf(hello), limit)
	defer cancel()
	n := s.want(ctx, name)
	if _, parent, ok := strings.Cut(name, "."); n == nil && ok && (s.o.DNSPersist || s.o.DNS != nil) {
		n = s.want(ctx, "*."+parent)
	}
	if n == nil {
		return nil, nil
	}
	return s.await(ctx, n, func() bool { // after a failed attempt the next one takes too long
		return !n.busy || s.ctx.Err() != nil || s.o.HandshakeTimeout < 0
	}), nil
}

// want tells the name's goroutine that a handshake asks for the name, and starts one for a new
// name. It returns nil for a name that this source does not own or cannot obtain now.
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
		if s.ctx.Err() != nil || !s.makeRoom() {
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

// makeRoom drops the least recently used name if there are too many. The caller holds mu.
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

// drop forgets a name that is not one of Domains. Its cache entries stay. The caller holds mu.
func (s *state) drop(n *name) {
	if s.names[n.text] == n {
		delete(s.names, n.text)
	}
	n.stop()
	n.busy = false
	n.notify()
}

// owns reports whether this source may obtain a name.
func (s *state) owns(ctx context.Context, name string) bool {
	s.mu.Lock()
	_, known := s.names[name]
	s.mu.Unlock()
	return known || s.sni[name] || s.allows(ctx, name)
}

func (s *state) allows(ctx context.Context, name string) bool {
	if s.o.HostPolicy == nil {
		return false
	}
	err := s.o.askPolicy(ctx, &s.abandoned.policy, name)
	if errors.Is(err, errPanicked) {
		s.panicked.Do(func() { s.warn(name, err) })
	}
	return err == nil
}

func (a *Source) askPolicy(ctx context.Context, abandoned *atomic.Int32, name string) error {
	ctx, cancel := context.WithTimeout(ctx, policyTimeout)
	defer cancel()
	_, err := guard(ctx, abandoned, "HostPolicy", func() (any, error) { return nil, a.HostPolicy(ctx, name) })
	return err
}

// stillWanted decides about the next order for a name that a handshake asked for. If the policy now
// refuses the name, it is dropped, but not before its certificate expires: the policy may be wrong,
// for example while its database is down, and is asked again.
func (s *state) stillWanted(ctx context.Context, n *name, serving bool) bool {
	if n.fixed {
		return true
	}
	err := s.o.askPolicy(ctx, &s.abandoned.policy, n.text)
	if ctx.Err() != nil {
		return false
	}
	if err != nil && serving {
		err = fmt.Errorf("acme.Source.HostPolicy refuses a name that is served; it is not renewed: %w", err)
		s.postpone(n, err)
	}
	if err == nil || serving {
		s.emitOnce(certmanager.Warning, n, "policy", err)
		return err == nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(n)
	return false
}
