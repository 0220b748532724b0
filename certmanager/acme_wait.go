package certmanager

import (
	"context"
	"crypto/tls"

	"github.com/ergotls/ergotls/internal/clock"
)

// await waits, for a handshake with a name that nothing is served for, until an ACME source
// has obtained a certificate for it, as long as ACME.HandshakeTimeout allows. Without such a source there is nothing to wait for.
func (m *Manager) await(hello *tls.ClientHelloInfo) {
	if hello.ServerName == "" || !m.current.Load().names.lookup(hello.ServerName).none() {
		return
	}
	name, err := acmeNameOf(hello.ServerName)
	if err != nil {
		return
	}
	ctx := hello.Context()
	if ctx == nil { // a hello that crypto/tls did not make
		ctx = context.Background()
	}
	for _, s := range m.acme {
		if s.await(ctx, name) {
			return
		}
	}
}

// await returns false if the name is not this source's.
func (s *acmeState) await(ctx context.Context, name string) bool {
	limit := s.o.HandshakeTimeout
	if limit < 0 {
		limit = defaultHandshakeTimeout // for the policy
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	n := s.want(ctx, name)
	if n == nil || s.o.HandshakeTimeout < 0 {
		return n != nil
	}
	for {
		current := s.m.current.Load()
		if !current.names.lookup(name).none() {
			return true
		}
		s.mu.Lock()
		hopeless, changed := !n.busy && n.cert == nil, n.changed
		s.mu.Unlock()
		if hopeless { // the last attempt failed; the next is some time away
			return true
		}
		select {
		case <-ctx.Done():
			return true
		case <-s.ctx.Done():
			return true
		case <-changed:
		case <-current.replaced:
		}
	}
}

// want tells the name's goroutine that a handshake asks for it, and starts it for a name that
// is new. It returns nil for a name that is not this source's.
func (s *acmeState) want(ctx context.Context, name string) *acmeName {
	s.mu.Lock()
	n := s.names[name]
	s.mu.Unlock()
	if n == nil && !s.allows(ctx, name) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = s.names[name]; n == nil {
		if s.closing {
			return nil
		}
		n = newACMEName(name, false)
		s.names[name] = n
		s.tending.Go(func() { s.tend(s.ctx, n) })
	}
	if n.cert == nil && !clock.Now().Before(n.due) {
		n.busy = true
	}
	select {
	case n.asked <- struct{}{}:
	default:
	}
	return n
}

// owns says whether a name is this source's to obtain.
func (s *acmeState) owns(ctx context.Context, name string) bool {
	s.mu.Lock()
	_, known := s.names[name]
	s.mu.Unlock()
	return known || s.allows(ctx, name)
}

func (s *acmeState) allows(ctx context.Context, name string) bool {
	return s.o.HostPolicy != nil && s.o.HostPolicy(ctx, name) == nil
}
