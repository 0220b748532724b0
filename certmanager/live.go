package certmanager

import (
	"crypto/tls"
	"maps"
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

	mu    sync.Mutex // guards the fields below and the timers of conns
	conns map[*conn]struct{}

	// What Recycle was asked for last, for those whose handshake was on its way then.
	recycled     uint64
	recycleUntil time.Time
}

// conn is one open connection.
type conn struct {
	remote     net.Addr
	generation uint64
	evict      func(error)
	peer       atomic.Pointer[Peer] // as it was judged last
	ended      atomic.Bool          // evicted or released

	// Guarded by live.mu.
	expiry *time.Timer // when the peer's certificate ends
	due    *time.Timer // an eviction that waits its turn
	dueAt  time.Time
	reason error
}

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
		c, peer := &conn{remote: remote, generation: generation, evict: evict}, m.newPeer(state, servers)
		if current := m.current.Load(); !servers && generation == current.generation { // else it is not known with what it was verified
			peer.pool = current.policy.clients.id
		}
		m.live.add(c, peer)
		return func() { m.live.remove(c) }
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

// add lists a connection that holds by what is in service, and arms the timer for the end of its
// peer's certificate. One that does not is evicted.
func (l *live) add(c *conn, peer *Peer) {
	for {
		current := l.m.current.Load()
		judged, err := l.judge(peer, current) // outside the lock: rules and signatures may be slow
		c.peer.Store(judged)
		if err != nil && !current.policy.tolerates(err) {
			if l.m.ctx.Err() == nil { // else nothing is evicted any more
				l.evict(c, err)
			}
			return
		}
		if l.list(c, current) {
			return
		}
	}
}

// list lists a connection that was judged by a snapshot, unless another one is in service now:
// whoever publishes stores the snapshot first and goes through the list then, so that no connection
// is missed between the two.
func (l *live) list(c *conn, judged *snapshot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.m.ctx.Err() != nil:
		return true
	case l.m.current.Load() != judged:
		return false
	}
	l.conns[c] = struct{}{}
	l.arm(c)
	if c.generation < l.recycled {
		l.recycle(c)
	}
	return true
}

// judge decides about the peer of an open connection. The peer that it returns carries the chains
// that hold, so that the next judgement of it is a lookup.
func (l *live) judge(p *Peer, s *snapshot) (*Peer, error) {
	now := clock.Now()
	when := now
	if begin := p.begins(); when.Before(begin) {
		when = begin // it had begun in its handshake: since then the clock was set back
	}
	judged, err := s.policy.judge(p, when, now)
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
	if end := c.peer.Load().expires(); !end.IsZero() && !l.m.options.KeepExpiredConnections {
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
	if err := l.judgeAgain(c, l.m.current.Load()); err != nil {
		l.evict(c, err)
	}
}

// judgeAgain judges a listed connection, and returns why it is to be evicted.
func (l *live) judgeAgain(c *conn, current *snapshot) error {
	peer, err := l.judge(c.peer.Load(), current) // outside the lock, as in add
	tolerated := err != nil && current.policy.tolerates(err)
	if !l.update(c, peer, err == nil || tolerated) {
		return nil
	}
	if tolerated {
		l.m.counts.reported.Add(1)
		l.m.emit(Event{Kind: PeerEvicted, Peer: newPeerInfo(peer, c.remote), ReportOnly: true, Err: err})
		return nil
	}
	return err
}

// update notes what a judgement has found, if the connection is still listed.
func (l *live) update(c *conn, peer *Peer, holds bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, listed := l.conns[c]; !listed {
		return false
	}
	c.peer.Store(peer)
	if holds {
		l.arm(c)
	}
	return true
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

// judgeAll judges every connection by what is in service.
func (l *live) judgeAll() {
	l.judging.Lock()
	defer l.judging.Unlock()
	began, failed := time.Now(), 0
	for _, c := range l.all() {
		if err := l.judgeAgain(c, l.m.current.Load()); err != nil {
			l.evictFailed(c, err, began, failed)
			failed++
		}
	}
}

func (l *live) all() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.conns))
}

// close forgets all connections, when ctx has ended. They stay open.
func (l *live) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
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
