package certmanager

import "fmt"

// Done returns a channel that is closed when the Manager is. Package meta's servers say so then.
func (m *Manager) Done() <-chan struct{} { return m.ctx.Done() }

// Ready returns why no server can use the Manager, nil if one can: [ErrClosed], or
// [ErrNoCertificate] where there is none and the source has none to come. Package meta asks before
// it listens.
func (m *Manager) Ready() error {
	if m.ctx.Err() != nil {
		return ErrClosed
	}
	if s := m.current.Load(); len(s.certs) == 0 && !s.in.material.late {
		return fmt.Errorf("%w for a server: give the source one (Files.Cert and Files.Key, say), or call Update before", ErrNoCertificate)
	}
	return nil
}
