package certmanager

import (
	"errors"
	"math/rand/v2"
	"time"
)

// evict ends a connection now. The caller does not hold mu, for the program's function may
// well release the connection.
func (l *live) evict(c *conn, reason error) {
	if !c.ended.CompareAndSwap(false, true) {
		return
	}
	l.m.counts.evicted.Add(1)
	l.m.events.emit(Event{Kind: PeerEvicted, Generation: l.m.current.Load().generation, Peer: newPeerInfo(l.peerOf(c), c.remote), Err: reason})
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
	if l.closed || c.ended.Load() {
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
