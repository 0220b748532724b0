package certmanager

import (
	"crypto/tls"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// live knows every open connection, so that trust that changes reaches them too.
type live struct {
	m *Manager

	judging sync.Mutex // one judgeAll at a time

	mu     sync.Mutex // guards the fields below and the timers of conns
	closed bool
	conns  map[*conn]struct{}

	// What Recycle was asked for last, for those whose handshake was on its way then.
	recycled     uint64
	recycleUntil time.Time
}

// conn is one open connection.
type conn struct {
	remote     net.Addr
	generation uint64
	evict      func(error)
	ended      atomic.Bool // evicted or released

	// Guarded by live.mu once it is listed.
	peer   *Peer
	expiry *time.Timer // when the peer's certificate ends
	due    *time.Timer // an eviction that waits its turn
	dueAt  time.Time
}

// evictionSpread bounds the time over which many connections are closed that fail at
// once, a millisecond for each: their peers will all come back.
const evictionSpread = time.Second

func (l *live) init(m *Manager) { l.m, l.conns = m, make(map[*conn]struct{}) }

// Accepting is called by a server before a handshake with [Manager.ServerTLS]. It returns
// [Manager.Track] for the connection, which then counts as begun under the present generation:
// [Manager.Recycle] also finds it if the generation changed during the handshake.
func (m *Manager) Accepting() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())) {
	return m.tracking(false)
}

// Dialing is [Manager.Accepting] for a client, with [Manager.ClientTLS].
func (m *Manager) Dialing() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())) {
	return m.tracking(true)
}

// tracking returns the track function for peers that are servers, or clients.
func (m *Manager) tracking(servers bool) func(*tls.ConnectionState, net.Addr, func(error)) (release func()) {
	generation := m.current.Load().generation
	return func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()) {
		return m.track(generation, servers, state, remote, evict)
	}
}

// Track registers an open connection, after its handshake with a config of this Manager and until
// release is called. When trust changes the peer is verified again. If it is no longer accepted,
// evict is called with a reason that wraps [ErrRevoked], [ErrNotAuthorized], [ErrUntrusted],
// [ErrExpired], [ErrCRLOutOfDate] or [ErrRecycled]. If trust changed since the handshake, that
// happens at once.
//
// evict is called at most once, from any goroutine, perhaps before Track returns; it
// must not block. release may be called more than once, by evict as well.
//
// Do not track a connection whose verification was turned off: it would be evicted. A peer without
// VerifiedChains is taken for a server: see [Manager.Accepting].
func (m *Manager) Track(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()) {
	// The connections of a server carry the chains that crypto/tls verified, unless the CAs are too
	// many to be named. Those of a client do not, since ClientTLS verifies by itself.
	return m.tracking(len(state.PeerCertificates) > 0 && len(state.VerifiedChains) == 0)(state, remote, evict)
}

func (m *Manager) track(generation uint64, server bool, state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()) {
	current := m.current.Load()
	c := &conn{peer: m.newPeer(state, server), remote: remote, generation: generation, evict: evict}
	if !server && generation == current.generation { // else it is not known with what it was verified
		c.peer.pool = current.policy.clientID.text
	}
	var err error
	c.peer, err = m.live.judge(c.peer, current) // outside the lock, as it may verify signatures
	if open, latest := m.live.add(c, current, err); open && latest != nil {
		m.live.evict(c, latest)
	}
	return func() { m.live.remove(c) }
}

// add lists a connection that was judged by a snapshot and arms the timer for the end of
// its peer's certificate. It returns what the snapshot in service says of it.
func (l *live) add(c *conn, judged *snapshot, err error) (open bool, latest error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, nil
	}
	// In the list first, judged then: whoever publishes stores the snapshot first and
	// goes through the list then, so that no connection slips between the two.
	l.conns[c] = struct{}{}
	current := l.m.current.Load()
	if current != judged {
		c.peer, err = l.judge(c.peer, current)
	}
	if err != nil && !current.policy.tolerates(err) {
		return true, err
	}
	l.arm(c)
	if c.generation < l.recycled {
		l.evictLater(map[*conn]error{c: c.recycled()}, max(0, time.Until(l.recycleUntil)))
	}
	return true, nil
}

// judge decides about the peer of an open connection. The peer that it returns carries the chains
// that hold, so that the next judgement of it is a lookup.
func (l *live) judge(p *Peer, s *snapshot) (*Peer, error) {
	now := clock.Now()
	judged, err := s.policy.judge(p, now, now)
	if end := p.expires(); err != nil && l.m.options.KeepExpiredConnections && !end.IsZero() && now.After(end) {
		return s.policy.judge(p, end, now) // as in their last moment
	}
	return judged, err
}

// arm sets the timer for the end of the peer's certificate. The caller holds mu.
func (l *live) arm(c *conn) {
	if c.expiry != nil {
		c.expiry.Stop()
	}
	if end := c.peer.expires(); !end.IsZero() && !l.m.options.KeepExpiredConnections {
		// Certificates are valid up to and with the last second that they name.
		c.expiry = time.AfterFunc(clock.Until(end)+time.Nanosecond, func() { l.review(c) })
	}
}

// clockStepped sets the timers anew, which fire at once where a certificate has ended meanwhile.
func (l *live) clockStepped() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		l.arm(c)
	}
}

// review judges a connection whose chains have ended. Others may hold in their place, since
// a CA can be renewed; they end too.
func (l *live) review(c *conn) {
	l.mu.Lock()
	current := l.m.current.Load()
	var err error
	c.peer, err = l.judge(c.peer, current)
	_, listed := l.conns[c]
	failed := err != nil && !current.policy.tolerates(err)
	if listed && !failed {
		l.arm(c)
	}
	l.mu.Unlock()
	if failed {
		l.evict(c, err)
	}
}

func (l *live) remove(c *conn) {
	c.ended.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.stop()
}

func (c *conn) stop() {
	for _, t := range []*time.Timer{c.expiry, c.due} {
		if t != nil {
			t.Stop()
		}
	}
}

// evict ends a connection now. The caller does not hold mu, for the program's function may
// well release the connection.
func (l *live) evict(c *conn, reason error) {
	if !c.ended.CompareAndSwap(false, true) {
		return
	}
	l.m.counts.evicted.Add(1)
	l.mu.Lock()
	peer := c.peer
	l.mu.Unlock()
	l.m.events.emit(Event{Kind: PeerEvicted, Generation: l.m.current.Load().generation, Peer: newPeerInfo(peer, c.remote), Err: reason})
	c.evict(reason)
}

// judgeAll judges every connection by what is in service.
func (l *live) judgeAll() {
	l.judging.Lock()
	defer l.judging.Unlock()
	current := l.m.current.Load()
	failed := make(map[*conn]error)
	for _, c := range l.list() {
		l.mu.Lock()
		peer := c.peer
		l.mu.Unlock()
		// Outside the lock, which new connections need: where a CA was renewed it verifies
		// signatures, of every peer.
		peer, err := l.judge(peer, current)
		l.mu.Lock()
		if _, listed := l.conns[c]; listed {
			c.peer = peer
			switch {
			case err == nil:
				l.arm(c)
			case current.policy.tolerates(err):
				l.m.counts.reported.Add(1)
				l.m.events.emit(Event{Kind: PeerEvicted, Generation: current.generation, Peer: newPeerInfo(peer, c.remote), ReportOnly: true, Err: err})
				l.arm(c)
			default:
				failed[c] = err
			}
		}
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.evictLater(failed, min(evictionSpread, time.Duration(len(failed))*time.Millisecond))
}

func (l *live) list() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.conns))
}

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

// close forgets all connections. They stay open.
func (l *live) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.conns {
		c.stop()
	}
	clear(l.conns)
}

func (l *live) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}
