package certmanager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// evict ends a connection now. The caller does not hold mu, for the program's function may
// well release the connection.
func (l *live) evict(c *conn, reason error) {
	if !c.ended.CompareAndSwap(false, true) {
		return
	}
	l.m.counts.evicted.Add(1)
	l.m.emit(Event{Kind: PeerEvicted, Peer: newPeerInfo(c.peer.Load(), c.remote), Err: reason})
	l.m.events.safely("the function that closes a connection", func() { c.evict(reason) })
}

// evictionSpread bounds the time over which many connections are closed that fail at
// once, a millisecond for each: their peers will all come back.
const evictionSpread = time.Second

// evictFailed ends the n-th connection, from 0, of those that a change at a time has taken trust
// from. It does not wait until it is known how many they are.
func (l *live) evictFailed(c *conn, reason error, changed time.Time, n int) {
	after := time.Duration(n) * time.Millisecond
	if after >= evictionSpread {
		after = rand.N(evictionSpread)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evictAt(c, reason, changed.Add(after))
}

// evictAt ends a connection at a time, or sooner where it was to end sooner. The caller holds mu.
func (l *live) evictAt(c *conn, reason error, when time.Time) {
	if l.m.ctx.Err() != nil || c.ended.Load() {
		return
	}
	if c.due != nil {
		c.due.Stop()
		if c.dueAt.Before(when) {
			when = c.dueAt
		}
		if errors.Is(reason, ErrRecycled) {
			reason = c.reason // maybe a better one
		}
	}
	c.dueAt, c.reason = when, reason
	c.due = time.AfterFunc(time.Until(when), func() { l.evict(c, reason) })
}

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

// policyOf returns what would decide about peers if the source gave candidate.
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
	then, err := newPolicy(&in, &m.options, &policy{})
	if err == nil && then.clientAuth < current.policy.clientAuth {
		err = errors.New("the candidate gives no client CA bundle, while clients are verified now")
	}
	return then, err
}
