package certmanager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// Recycle closes, with [ErrRecycled], the tracked connections that began under a generation earlier
// than before, spread over a time, so that their peers reconnect to the set in service now. It
// returns their number without waiting. A connection began under the generation at the time of
// [Manager.Accepting], or without that at the end of its handshake. Connections in a handshake are
// closed too, and not counted.
func (m *Manager) Recycle(before uint64, over time.Duration) (n int) {
	over = max(0, min(over, clock.Far))
	l := &m.live
	l.mu.Lock()
	defer l.mu.Unlock()
	// A generation that is yet to come begins when it is published: what begins until then is not
	// older than what is known.
	l.recycled, l.recycleUntil = max(l.recycled, min(before, m.current.Load().generation)), time.Now().Add(over)
	for c := range l.conns {
		if c.generation < before {
			l.recycle(c)
			n++
		}
	}
	return n
}

// recycle ends a connection within the time that Recycle was given. The caller holds mu.
func (l *live) recycle(c *conn) {
	reason := fmt.Errorf("%w: it began under generation %d", ErrRecycled, c.generation)
	within := max(0, time.Until(l.recycleUntil))
	l.evictAt(c, reason, time.Now().Add(rand.N(within+1)))
}

// DryRun returns the peers of the tracked connections that would be closed if the source gave
// candidate. Use it before you remove a CA. Only candidate's bundles and revocation lists count;
// the rules and client authentication in service stay.
func (m *Manager) DryRun(candidate Source) ([]PeerInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	got, err := (&loader{}).load(ctx, candidate, nil)
	if err != nil {
		return nil, fmt.Errorf("certmanager: dry run: %w", err)
	}
	current := m.current.Load()
	in := current.in
	in.clientCAs, in.rootCAs = nil, nil
	in.material = newMaterial(got, current, nil)
	if err := in.material.err; err != nil {
		return nil, fmt.Errorf("certmanager: dry run: %w", err)
	}
	policy, err := newPolicy(&in, &m.options, nil)
	if err == nil && policy.clientAuth < current.policy.clientAuth {
		err = errors.New("the candidate gives no client CA bundle, while clients are verified now")
	}
	if err != nil {
		return nil, fmt.Errorf("certmanager: dry run: %w", err)
	}
	then := &snapshot{policy: policy}
	var affected []PeerInfo
	for _, c := range m.live.all() {
		peer := m.live.peerOf(c)
		if _, err := m.live.judge(peer, then); err != nil && !policy.tolerates(err) {
			affected = append(affected, *newPeerInfo(peer, c.remote))
		}
	}
	return affected, nil
}
