package certmanager

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"
)

// read takes what the source has. The number tells load which of several readings began last.
func (m *Manager) read() (got *content, number uint64, err error) {
	number = m.reads.Add(1)
	got, err = m.options.Source.read()
	return got, number, err
}

// loadFirst gives a pair that is just being replaced the time that the keeper gives it: a program may start at that moment.
func (m *Manager) loadFirst() error {
	err := m.tryFirst()
	for began := time.Now(); errors.Is(err, ErrMismatch) && len(m.options.Source.paths()) > 0 && time.Since(began) < patience; {
		time.Sleep(settle)
		err = m.tryFirst()
	}
	return err
}

func (m *Manager) tryFirst() error {
	got, number, err := m.read()
	if err != nil {
		return err
	}
	o := &m.options
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loaded = number
	return m.loadInto(inputs{clientAuth: o.ClientAuth, clientRule: o.ClientRule, serverRule: o.ServerRule}, got, nil, true)
}

// changed makes the keeper look at the source soon. It never blocks, and any goroutine may
// call it.
func (m *Manager) changed() {
	select {
	case m.wanted <- struct{}{}:
	default: // it has not looked since the last call
	}
}

// push puts the present set of one source in service, beside what is in service of the others,
// which may be in the middle of a change, or broken. Without a rehearsal it takes
// back what must not be served any longer. Before the first set it is changed.
func (m *Manager) push(source Source, rehearse bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	current := m.current.Load()
	var got *content
	var err error
	if current == nil {
		m.changed()
		return
	}
	number := m.reads.Add(1)
	if all, ok := m.options.Source.(Sources); ok {
		i, parts := slices.Index(all, source), slices.Clone(current.in.content.parts)
		if parts[i], err = source.read(); err == nil {
			got = joinContents(parts)
		}
	} else {
		got, err = source.read()
	}
	if err == nil {
		err = m.loadNext(got, number, rehearse)
	}
	if err != nil && !errors.Is(err, ErrClosed) {
		m.reject(err)
	}
}

// Reload reads the source now and puts it in service, without waiting for files to
// settle. The error says why the set in service was kept.
//
// If ctx ends first its error is returned. The reading goes on then, and what it finds is put in
// service, as it would be without Reload.
func (m *Manager) Reload(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- m.reload() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("certmanager: reload: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("certmanager: reload: %w", ctx.Err())
	}
}

func (m *Manager) reload() error {
	for {
		got, number, err := m.read()
		stale := false
		if err == nil {
			stale, err = m.load(got, number)
		}
		if stale {
			continue
		}
		if err != nil && !errors.Is(err, ErrClosed) {
			m.reject(err)
		}
		return err
	}
}

// load puts what was read in service, unless a reading that began later is: that would take back
// what is newer.
func (m *Manager) load(got *content, number uint64) (stale bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if number < m.loaded {
		return true, nil
	}
	return false, m.loadNext(got, number, true)
}

// loadNext puts a reading in service after the first. The caller holds mu.
func (m *Manager) loadNext(got *content, number uint64, rehearse bool) error {
	in := m.current.Load().in
	if got.digest != in.digest {
		if err := m.loadInto(in, got, in.material.byDigest, rehearse); err != nil {
			return err
		}
	}
	m.loaded = number
	return nil
}

func (m *Manager) loadInto(in inputs, got *content, known map[[sha256.Size]byte]*certificate, rehearse bool) error {
	parsed, err := got.parse(known)
	if err != nil {
		return err
	}
	in.material, in.content, in.digest, in.update = parsed, got, got.digest, nil
	return m.publish(in, rehearse)
}
