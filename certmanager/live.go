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

// live tracks open connections, so that a change of trust applies to them too.
type live struct {
	m *Manager

	judging sync.Mutex // one judgeAll at a time

	mu    sync.Mutex // guards the fields below and the timers of conns
	conns map[*conn]struct{}

	// The last call of Recycle, for connections that were in a handshake then.
	recycled     uint64
	recycleUntil time.Time
}

// conn is one open connection.
type conn struct {
	remote     net.Addr
	generation uint64
	evict      func(error)
	peer       atomic.Pointer[Peer] // as last judged
	ended      atomic.Bool          // evicted or released

	// Guarded by live.mu.
	expiry *time.Timer // fires when the peer's certificate expires
	due    *eviction   // nil: none is scheduled
}

// eviction is a scheduled end of a connection.
type eviction struct {
	timer  *time.Timer
	at     time.Time
	reason error
}

func (l *live) init(m *Manager) { l.m, l.conns = m, make(map[*conn]struct{}) }

// Accepting is called by a server before a handshake with [Manager.ServerTLS]. It returns the
// function to call instead of [Manager.Track] after the handshake; if that fails, nothing needs to
// be called. The connection counts as begun under the generation at the time of Accepting, so
// [Manager.Recycle] finds it even if the generation changes during the handshake.
func (m *Manager) Accepting() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())) {
	return m.tracking(false)
}

// Dialing is [Manager.Accepting] for a client that uses [Manager.ClientTLS].
func (m *Manager) Dialing() (track func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())) {
	return m.tracking(true)
}

// tracking returns the track function for peers that are servers or clients.
func (m *Manager) tracking(servers bool) func(*tls.ConnectionState, net.Addr, func(error)) (release func()) {
	generation := m.current.Load().generation
	return func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()) {
		c, peer := &conn{remote: remote, generation: generation, evict: evict}, m.newPeer(state, servers)
		if current := m.current.Load(); !servers && generation == current.generation { // else the roots that verified it are unknown
			peer.pool = current.policy.clients.id
		}
		m.live.add(c, peer)
		return func() { m.live.remove(c) }
	}
}

// Track registers an open connection, after its handshake with a config of this Manager and until
// release is called. When trust changes, the peer is verified again. If it is no longer accepted,
// evict is called with a reason that wraps [ErrRevoked], [ErrNotAuthorized], [ErrUntrusted],
// [ErrExpired], [ErrCRLOutOfDate] or [ErrRecycled]. If trust has changed since the handshake, Track
// itself verifies the peer again.
//
// evict is called at most once, from any goroutine, perhaps before Track returns; it
// must not block. release may be called more than once, by evict as well.
//
// Do not track a connection whose verification was turned off: it would be evicted. Track takes a
// peer without VerifiedChains for a server; use [Manager.Accepting] instead.
func (m *Manager) Track(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()) {
	// A server's connections have the chains that crypto/tls verified, unless there are too many CAs
	// to name. A client's connections have none, since ClientTLS verifies by itself.
	return m.tracking(len(state.PeerCertificates) > 0 && len(state.VerifiedChains) == 0)(state, remote, evict)
}

// add lists a connection whose peer is accepted by the snapshot in service, and sets the timer for
// the expiry of its peer's certificate. It evicts any other connection.
func (l *live) add(c *conn, peer *Peer) {
	for {
		current := l.m.current.Load()
		judged, err := l.judge(peer, current) // without the lock: rules and signatures may be slow
		c.peer.Store(judged)
		if err != nil && !current.policy.tolerates(err) {
			if l.m.ctx.Err() == nil { // after Close nothing is evicted
				l.evict(c, err)
			}
			return
		}
		if l.list(c, current) {
			return
		}
	}
}

// list lists a connection that was judged by a snapshot, unless another one is in service now. A
// publisher first stores the snapshot and then goes through the list, so that no connection is
// missed in between.
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

// judge decides about the peer of an open connection. The returned peer has the chains that hold,
// so that its next judgement is a lookup.
func (l *live) judge(p *Peer, s *snapshot) (*Peer, error) {
	now := clock.Now()
	when := now
	if begin := p.begins(); when.Before(begin) {
		when = begin // it was valid in its handshake: the clock was set back since
	}
	judged, err := s.policy.judge(p, when, now)
	if end := p.expires(); err != nil && l.m.options.KeepExpiredConnections && !end.IsZero() && now.After(end) {
		return s.policy.judge(p, end, now) // judged at their last valid second
	}
	return judged, err
}

// arm sets the timer for the expiry of the peer's certificate. The caller holds mu.
func (l *live) arm(c *conn) {
	if c.expiry != nil {
		c.expiry.Stop()
	}
	if end := c.peer.Load().expires(); !end.IsZero() && !l.m.options.KeepExpiredConnections {
		// Certificates are valid up to and including the second of NotAfter.
		c.expiry = time.AfterFunc(clock.Until(end)+time.Nanosecond, func() { l.review(c) })
	}
}

// clockStepped resets the timers. They fire at once if a certificate has expired meanwhile.
func (l *live) clockStepped() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		l.arm(c)
	}
}

// review judges a connection whose chains have expired. Other chains may hold instead, since a CA
// can be renewed; then the timer is set for those.
func (l *live) review(c *conn) {
	if err := l.judgeAgain(c, l.m.current.Load()); err != nil {
		l.evict(c, err)
	}
}

// judgeAgain judges a listed connection, and returns the reason to evict it.
func (l *live) judgeAgain(c *conn, current *snapshot) error {
	peer, err := l.judge(c.peer.Load(), current) // without the lock, as in add
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

// update stores the result of a judgement if the connection is still listed.
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
	if c.expiry != nil {
		c.expiry.Stop()
	}
	if c.due != nil {
		c.due.timer.Stop()
	}
}

// judgeAll judges every connection by the snapshot in service.
func (l *live) judgeAll() {
	l.judging.Lock()
	defer l.judging.Unlock()
	began, failed, pace := time.Now(), 0, pacer{on: true}
	for _, c := range l.all() {
		pace.step()
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

// close forgets all connections after ctx has ended. They stay open.
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
