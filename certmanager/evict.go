package certmanager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// evict ends a connection now. The caller must not hold mu, because the program's function may
// release the connection.
func (l *live) evict(c *conn, reason error) {
	if !c.ended.CompareAndSwap(false, true) {
		return
	}
	l.m.counts.evicted.Add(1)
	l.m.emit(Event{Kind: PeerEvicted, Peer: newPeerInfo(c.peer.Load(), c.remote), Err: reason})
	l.m.events.safely("the function that closes a connection", func() { c.evict(reason) })
}

// evictionSpread limits the time over which many connections that fail at once are closed, one per
// millisecond, because their peers will all reconnect.
const evictionSpread = time.Second

// evictFailed ends the n-th connection, from 0, of those that lost their trust by a change. It need
// not know how many there are.
func (l *live) evictFailed(c *conn, reason error, changed time.Time, n int) {
	after := time.Duration(n) * time.Millisecond
	if after >= evictionSpread {
		after = rand.N(evictionSpread)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evictAt(c, reason, changed.Add(after))
}

// evictAt ends a connection at when, or earlier if that was planned. The caller holds mu.
func (l *live) evictAt(c *conn, reason error, when time.Time) {
	if l.m.ctx.Err() != nil || c.ended.Load() {
		return
	}
	if c.due != nil {
		c.due.timer.Stop()
		if c.due.at.Before(when) {
			when = c.due.at
		}
		if errors.Is(reason, ErrRecycled) {
			reason = c.due.reason // it may have been replaced
		}
	}
	c.due = &eviction{time.AfterFunc(time.Until(when), func() { l.evict(c, reason) }), when, reason}
}

// Recycle closes, with [ErrRecycled], the tracked connections that began under a generation earlier
// than before, so that their peers reconnect to the set in service now. It spreads the closes over
// the given time and returns their number without waiting. A connection begins under the generation
// at the time of [Manager.Accepting], or without that call at the end of its handshake. Connections
// in a handshake are closed too, but not counted.
func (m *Manager) Recycle(before uint64, over time.Duration) (n int) {
	over = max(0, min(over, clock.Far))
	l := &m.live
	l.mu.Lock()
	defer l.mu.Unlock()
	// A generation starts when it is published: a connection that begins until then is not older than
	// the current generation, so that is the limit for later handshakes.
	l.recycled, l.recycleUntil = max(l.recycled, min(before, m.current.Load().generation)), time.Now().Add(over)
	for c := range l.conns {
		if c.generation < before {
			l.recycle(c)
			n++
		}
	}
	return n
}

// recycle ends a connection within the time passed to Recycle. The caller holds mu.
func (l *live) recycle(c *conn) {
	reason := fmt.Errorf("%w: it began under generation %d", ErrRecycled, c.generation)
	within := max(0, time.Until(l.recycleUntil))
	l.evictAt(c, reason, time.Now().Add(rand.N(within+1)))
}

// DryRun returns the peers of the tracked connections that would be closed if the source returned
// the contents of candidate. Use it before you remove a CA. Only candidate's bundles and revocation
// lists count; the rules and client authentication in service stay. DryRun loads candidate once,
// for at most 10 seconds, and returns an error if that fails or its bundles cannot be used.
func (m *Manager) DryRun(candidate Source) ([]PeerInfo, error) {
	policy, err := m.policyOf(candidate)
	if err != nil {
		return nil, fmt.Errorf("certmanager: dry run: %w", err)
	}
	then := &snapshot{policy: policy}
	var affected []PeerInfo
	for _, c := range m.live.all() {
		peer := c.peer.Load()
		if _, err := m.live.judge(peer, then); err != nil && !policy.tolerates(err) {
			affected = append(affected, *newPeerInfo(peer, c.remote))
		}
	}
	return affected, nil
}

// policyOf returns the policy that candidate would result in.
func (m *Manager) policyOf(candidate Source) (*policy, error) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTimeout)
	defer cancel()
	got, err := (&loader{}).load(ctx, candidate, nil)
	if err != nil {
		return nil, err
	}
	current := m.current.Load()
	in := current.in
	in.clientCAs, in.rootCAs = nil, nil
	in.material = newMaterial(got, current, nil)
	if in.material.err != nil {
		return nil, in.material.err
	}
	return newPolicy(&in, &m.options, current.policy)
}
