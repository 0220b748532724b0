package certmanager

// Goroutines:
//   - keep (keeper.go): one per Manager, started by New, ended by Close. It looks at the
//     source and tells when something ends.
//   - drain (watcher.go): one per Manager with files, started by New, or by keep where the system gave no
//     file events then, ended by keep. It passes file events on.
//   - run (source.go): one per Manager whose source changes by itself, started by New, ended
//     by Close. It tells the keeper.
//   - deliver (events.go): one per Manager, started by New, ended by Close. It calls the
//     subscribers.
//   - reload (load.go): one per call of Reload, ended by what it does, also after the call has returned.
//   - the two ends of a rehearsed handshake (rehearse.go): ended by the handshake.
//   - timers of open connections (live.go): stopped by release and by Close.

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/ergotls/ergotls/internal/clock"
)

// Manager serves certificates and decides about peers. Make one with [New]. All its
// methods may be called from any goroutine.
//
// It implements gen.CertManager, and the shape of Ergo's CertAuthManager.
type Manager struct {
	options  Options
	tickets  *tls.Config            // holds the ticket keys, for all servers of the manager
	sessions tls.ClientSessionCache // of all its clients
	keyLog   io.Writer              // nil unless asked for; open as long as a config may use it

	current    atomic.Pointer[snapshot]
	lastServer atomic.Pointer[Peer] // that a handshake of ours verified

	reads atomic.Uint64 // numbers the readings of the source in the order in which they begin

	mu     sync.Mutex // makes changes one after the other; guards the two below
	closed bool
	loaded uint64 // the reading that is in service

	live   live
	http   sync.Map // connections of ConnState, a *httpConn for each
	events events
	counts counts
	acme   []*acmeState // filled by open

	published chan struct{} // wakes the keeper: something is in service
	wanted    chan struct{} // wakes the keeper: the source has something
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// sessionsKept is for how many servers clients keep a session: a few KB each.
const sessionsKept = 256

// New loads and rehearses the source and returns when its first set is in service, or
// why it cannot be. A pair of files that does not match may be in the middle of its replacement: New looks again for a
// second. Close the Manager when it is no longer used.
func New(o Options) (*Manager, error) {
	o, err := o.ready()
	if err != nil {
		return nil, err
	}
	m := &Manager{options: o, tickets: &tls.Config{}, sessions: tls.NewLRUClientSessionCache(sessionsKept), published: make(chan struct{}, 1), wanted: make(chan struct{}, 1)}
	if len(o.TicketKeys) > 0 {
		m.tickets.SetSessionTicketKeys(o.TicketKeys)
	}
	m.events.init(o.Logger)
	m.live.init(m)
	if s, ok := o.Source.(opener); ok {
		if err := s.open(m); err != nil {
			for _, opened := range m.acme {
				opened.ended.Store(true)
			}
			return nil, fmt.Errorf("certmanager: %w", err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	if r, ok := o.Source.(runner); ok {
		m.done.Go(func() { r.run(ctx, m) })
	}
	k := newKeeper(m) // it watches before the first read, so that no change falls between
	if err = m.loadFirst(); err == nil {
		err = m.openKeyLog()
	}
	if err != nil {
		stop()
		m.done.Wait()
		k.watch.close()
		return nil, fmt.Errorf("certmanager: %w", err)
	}
	m.done.Go(func() { m.events.deliver(ctx) })
	m.done.Go(func() { k.keep(ctx) })
	return m, nil
}

// Close stops watching the source, delivering events and closing connections, and
// waits for the goroutines that do so. The configs that the Manager gave go on serving
// the last set. Close may be called twice, but not by a subscriber.
func (m *Manager) Close() error {
	m.mu.Lock()
	first := !m.closed
	m.closed = true
	m.mu.Unlock()
	if !first {
		m.done.Wait()
		return nil
	}
	m.stop()
	m.live.close()
	m.done.Wait()
	return nil
}

// publish makes a snapshot of inputs and puts it in service. The caller holds mu.
func (m *Manager) publish(in inputs, rehearse bool) error {
	if m.closed {
		return ErrClosed
	}
	previous := m.current.Load()
	next, err := newSnapshot(in, &m.options, previous)
	if err != nil {
		return err
	}
	now := clock.Now()
	if rehearse {
		if err := next.rehearse(&m.options, previous, now); err != nil {
			return err
		}
	} else if previous != nil && next.trust.rootCAs.Equal(previous.trust.rootCAs) {
		next.leads = previous.leads
	}
	next.generation, next.published = 1, now
	if previous != nil {
		next.generation = previous.generation + 1
	}
	m.current.Store(next)
	if previous != nil {
		close(previous.replaced)
	}
	select {
	case m.published <- struct{}{}:
	default: // it is awake already
	}
	m.counts.loads.Add(1)
	m.events.emit(m.loadedEvent(next))
	for _, doubt := range append(next.doubts, next.regressions(previous)...) {
		m.events.emit(Event{Kind: Regressed, Generation: next.generation, Err: doubt})
	}
	if previous == nil {
		return nil
	}
	if next.trust.fingerprint != previous.trust.fingerprint || in.ruled != previous.in.ruled {
		m.live.judgeAll(next)
	}
	return nil
}

// judgeAgain judges the open connections by what is in service, since time has passed.
func (m *Manager) judgeAgain() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live.judgeAll(m.current.Load())
}

// change edits what the program has set and puts the result in service.
func (m *Manager) change(rehearse bool, edit func(*inputs)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.current.Load().in
	edit(&in)
	if err := m.publish(in, rehearse); err != nil && !errors.Is(err, ErrClosed) {
		m.reject(err)
	}
}

// emit reports something about the set in service, or what is to become the first.
func (m *Manager) emit(e Event) {
	if current := m.current.Load(); current != nil {
		e.Generation = current.generation
	}
	m.events.emit(e)
}

// reject reports a candidate that was not put in service.
func (m *Manager) reject(err error) {
	m.counts.rejections.Add(1)
	m.counts.lastError.Store(&lastError{when: clock.Now(), text: err.Error()})
	m.events.emit(Event{Kind: Rejected, Generation: m.current.Load().generation, Err: err})
}
