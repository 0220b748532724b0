package certmanager

import (
	"errors"
	"fmt"
	"time"
)

// Recycle closes, with ErrRecycled, the tracked connections that began before a
// generation, spread over a time, so that their peers meet what is in service now. It
// returns how many they are, without waiting. A connection counts from the end of its handshake: one whose handshake ran while the
// generation was published is left alone, though it may have met the set before.
func (m *Manager) Recycle(before uint64, over time.Duration) int {
	if over < 0 {
		over = 0
	}
	old := make(map[*conn]error)
	m.live.mu.Lock()
	defer m.live.mu.Unlock()
	for c := range m.live.conns {
		if c.generation < before {
			old[c] = fmt.Errorf("%w: it began under generation %d", ErrRecycled, c.generation)
		}
	}
	m.live.evictLater(old, over)
	return len(old)
}

// Impact says which tracked connections would be closed if the source gave candidate:
// ask before a CA is dropped. Of candidate only the bundles and revocation lists count;
// rules and what SetClientAuth decided stay as they are.
func (m *Manager) Impact(candidate Source) ([]PeerInfo, error) {
	got, err := candidate.read()
	if err != nil {
		return nil, fmt.Errorf("certmanager: impact: %w", err)
	}
	current := m.current.Load()
	in := current.in
	in.clientCAs, in.rootCAs = nil, nil
	if in.material, err = got.parse(current.in.material.byDigest); err != nil {
		return nil, fmt.Errorf("certmanager: impact: %w", err)
	}
	trust, err := newTrust(&in, &m.options, nil)
	if err == nil && trust.clientAuth < current.trust.clientAuth {
		err = errors.New("the candidate gives no client CA bundle, while clients are verified now")
	}
	if err != nil {
		return nil, fmt.Errorf("certmanager: impact: %w", err)
	}
	then := &snapshot{trust: trust}
	var affected []PeerInfo
	for _, c := range m.live.list() {
		m.live.mu.Lock()
		peer := c.peer
		m.live.mu.Unlock()
		if _, err := m.live.judge(peer, then); err != nil && !trust.tolerates(err) {
			affected = append(affected, *newPeerInfo(peer, c.remote))
		}
	}
	return affected, nil
}
