package certmanager

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// live knows every open connection, so that trust that changes reaches them too.
type live struct {
	m *Manager

	mu     sync.Mutex // guards the fields below and the timers of conns
	closed bool
	conns  map[*conn]struct{}
}

// conn is one open connection.
type conn struct {
	peer       *Peer
	remote     net.Addr
	since      time.Time
	generation uint64
	evict      func(error)
	ended      atomic.Bool // evicted or released

	expiry *time.Timer // when the peer's certificate ends
	due    *time.Timer // an eviction that waits its turn
}

// evictionSpread bounds the time over which many connections are closed that fail at
// once, a millisecond for each: their peers will all come back.
const evictionSpread = time.Second

func (l *live) init(m *Manager) { l.m, l.conns = m, make(map[*conn]struct{}) }

// Track makes an open connection known, after its handshake with a config of this
// Manager and until release is called. When trust changes it is judged again, and
// evict is called if it no longer holds, with a reason that wraps ErrRevoked,
// ErrNotAuthorized, ErrUntrusted, ErrExpired or ErrRecycled. If trust changed since the
// handshake that happens at once.
//
// evict is called at most once, from any goroutine, perhaps before Track returns; it
// must not block. release may be called more than once, by evict as well.
//
// A connection whose verification was switched off must not be tracked: it fails.
func (m *Manager) Track(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func()) {
	now := time.Now()
	current := m.current.Load()
	// A server's connections carry the chains that crypto/tls verified. A client's do
	// not, since ClientTLS verifies by itself.
	server := len(state.PeerCertificates) > 0 && len(state.VerifiedChains) == 0
	c := &conn{peer: m.newPeer(state, server), remote: remote, since: now, generation: current.generation, evict: evict}
	if judged, err := current.trust.judge(c.peer, now); err == nil {
		c.peer = judged // with its chains, so that the next judgement is a lookup
	}
	release = func() { m.live.remove(c) }
	if !m.live.add(c) {
		return release
	}
	// In the list first, judged then: whoever publishes stores the snapshot first and
	// goes through the list then, so that no connection slips between the two.
	if err := m.live.judge(c, m.current.Load()); err != nil {
		m.live.evict(c, err)
	}
	return release
}

// judge decides about an open connection by the snapshot in service.
func (l *live) judge(c *conn, current *snapshot) error {
	now := time.Now()
	if l.m.options.KeepExpired {
		now = c.since
	}
	_, err := current.trust.judge(c.peer, now)
	if err == nil || current.trust.tolerates(err) {
		return nil
	}
	return err
}

// add lists a connection and arms the timer for the end of its peer's certificate.
func (l *live) add(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	l.arm(c)
	return true
}

// arm sets the timer for the end of the peer's certificate. The caller holds mu.
func (l *live) arm(c *conn) {
	if end := c.peer.expires(); !end.IsZero() && !l.m.options.KeepExpired {
		// Certificates are valid up to and with the last second that they name.
		c.expiry = time.AfterFunc(time.Until(end)+time.Nanosecond, func() {
			if err := l.judge(c, l.m.current.Load()); err != nil {
				l.evict(c, err)
			}
		})
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

// evict ends a connection now.
func (l *live) evict(c *conn, reason error) {
	if !c.ended.CompareAndSwap(false, true) {
		return
	}
	l.m.counts.evicted.Add(1)
	l.m.events.emit(Event{Kind: PeerEvicted, Generation: l.m.current.Load().generation, Peer: newPeerInfo(c.peer, c.remote), Err: reason})
	c.evict(reason)
}

// judgeAll judges every connection by a snapshot that was just published.
func (l *live) judgeAll(current *snapshot) {
	failed := make(map[*conn]error)
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if err := l.judge(c, current); err != nil {
			failed[c] = err
		}
	}
	l.evictLater(failed, min(evictionSpread, time.Duration(len(failed))*time.Millisecond))
}

// evictLater ends connections spread evenly at random over a time. The caller holds mu.
func (l *live) evictLater(reasons map[*conn]error, over time.Duration) {
	for c, reason := range reasons {
		if c.due == nil && !l.closed {
			c.due = time.AfterFunc(rand.N(over+1), func() { l.evict(c, reason) })
		}
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

// Recycle closes, with ErrRecycled, the tracked connections that began before a
// generation, spread over a time, so that their peers meet what is in service now. It
// returns how many they are, without waiting.
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
	m.live.mu.Lock()
	defer m.live.mu.Unlock()
	for c := range m.live.conns {
		if m.live.judge(c, then) != nil {
			affected = append(affected, *newPeerInfo(c.peer, c.remote))
		}
	}
	return affected, nil
}
