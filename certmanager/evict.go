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

// evictLater ends connections spread evenly at random over a time, or sooner where they
// were to end sooner. The caller holds mu.
func (l *live) evictLater(reasons map[*conn]error, over time.Duration) {
	now := time.Now()
	for c, reason := range reasons {
		if l.closed || c.ended.Load() {
			continue
		}
		when := now.Add(rand.N(over + 1))
		if c.due != nil {
			if errors.Is(reason, ErrRecycled) {
				continue // it ends already, and maybe for a better reason
			}
			c.due.Stop()
			if c.dueAt.Before(when) {
				when = c.dueAt
			}
		}
		c.dueAt = when
		c.due = time.AfterFunc(when.Sub(now), func() { l.evict(c, reason) })
	}
}
