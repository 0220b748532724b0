package certmanager

import "fmt"

// Done returns a channel that is closed when the Manager is closed. That of a Manager that New did
// not make is closed.
func (m *Manager) Done() <-chan struct{} {
	if m.ctx == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return m.ctx.Done()
}

// Ready returns nil if a server can use the Manager, else [ErrClosed], or [ErrNoCertificate] if
// there is no certificate and the source is not obtaining one. Package meta calls it before it
// listens.
func (m *Manager) Ready() error {
	if m.ctx == nil || m.ctx.Err() != nil {
		return ErrClosed
	}
	if s := m.current.Load(); len(s.certs) == 0 && !s.in.material.late {
		return fmt.Errorf("%w for a server: give the source one (Files.Cert and Files.Key, say), or call Update before", ErrNoCertificate)
	}
	return nil
}
