package acme

import (
	"context"
	"errors"
	"fmt"
)

// owns says whether a name is this source's to obtain.
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
	err := s.o.askPolicy(ctx, name)
	if errors.Is(err, errPanicked) {
		s.panicked.Do(func() { s.warn(name, err) })
	}
	return err == nil
}

func (a *Source) askPolicy(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, policyTimeout)
	defer cancel()
	return guard("HostPolicy", func() error { return a.HostPolicy(ctx, name) })
}

// stillWanted decides about the next order for a name that a handshake asked for. When the policy
// has changed its mind the name is dropped, but not before the end of what is in service: the policy
// may be mistaken, when its database is away for example, and is asked again.
func (s *state) stillWanted(ctx context.Context, n *name, serving bool) bool {
	if n.fixed {
		return true
	}
	err := s.o.askPolicy(ctx, n.text)
	if ctx.Err() != nil {
		return false
	}
	first := n.firstReport("policy", err != nil)
	switch {
	case err == nil:
		return true
	case serving:
		err = fmt.Errorf("acme.Source.HostPolicy refuses a name that is served; it is not renewed: %w", err)
		s.postpone(n, err)
		if first {
			s.warn(n.text, err)
		}
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(n)
	return false
}
