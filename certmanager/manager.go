package certmanager

// Goroutines:
//   - watch (sources.go): one per Manager, started by New, ended by Close. It runs Source.Watch.
//   - reloader.run (reload.go): one per Manager, started by New, ended by Close. It loads the
//     source and puts it in service.
//   - a call of Source.Load (sources.go): ended by the source, after Close if it ignores its
//     context.
//   - expire (expiry.go): one per Manager, started by New, ended by Close. It reports expiries.
//   - deliver (events.go): one per Manager, started by New, ended by Close. It calls the
//     subscribers.
//   - a rehearsed signature, and the two ends of a rehearsed handshake (rehearse.go): ended by the
//     key, and by the handshake.
//   - a signature of a key in a device (devicekey.go), and another that waits for an overdue one:
//     ended by the device.
//   - timers of open connections (live.go): stopped by release and by Close.

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// Manager serves certificates and decides whether to accept peers. Make one with [New]. Any
// goroutine may call its methods.
//
// It implements gen.CertManager and has the methods of Ergo's CertAuthManager.
type Manager struct {
	options  Options
	tickets  *tls.Config            // holds the ticket keys, for all servers of the manager
	sessions tls.ClientSessionCache // shared by all its clients
	keyLog   io.Writer              // nil unless SSLKEYLOGFILE is set; open as long as a config may use it

	current    atomic.Pointer[snapshot] // empty, with generation 0, before the first set
	lastServer atomic.Pointer[Peer]     // the last server verified in a handshake

	mu sync.Mutex // held to replace current and to cancel ctx; never during slow operations

	live   live
	http   sync.Map // connections of ConnState, a *httpConn for each
	events events
	counts counts

	published chan struct{}     // tells expire that another set is in service
	wanted    chan struct{}     // tells the reload loop that the source may have changed
	reloads   chan chan<- error // passes calls of Reload to the reload loop
	ctx       context.Context   // ends with Close
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// sessionsKept is the number of servers for which clients keep a session, a few KB each.
const sessionsKept = 256

// New loads and checks the source, and returns when its first set is in service, or an error. It
// waits for as long as the first Load of the source takes. If a pair of files does not match, it
// may be in the middle of its replacement, so New retries for up to a second. Close the Manager
// after use.
func New(o Options) (*Manager, error) {
	o, err := o.ready()
	if err != nil {
		return nil, err
	}
	m := &Manager{
		options: o, tickets: &tls.Config{}, sessions: tls.NewLRUClientSessionCache(sessionsKept),
		published: make(chan struct{}, 1), wanted: make(chan struct{}, 1), reloads: make(chan chan<- error),
	}
	if len(o.TicketKeys) > 0 {
		m.tickets.SetSessionTicketKeys(o.TicketKeys)
	}
	m.counts.warnings.Store(new([]error))
	m.counts.lastError.Store(&lastError{})
	m.events.init(o.Logger)
	m.live.init(m)
	m.current.Store(emptySnapshot(inputs{clientAuth: o.ClientAuth, clientRule: o.ClientRule, serverRule: o.ServerRule}))
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.done.Go(func() { keepWatching(m.ctx, o.Source, o.PollInterval, m.changed, m.report) })
	r := &reloader{m: m, polled: clock.Now(), counted: time.Now()}
	if err = r.first(m.ctx); err == nil {
		err = m.openKeyLog()
	}
	if err != nil {
		m.stop()
		m.done.Wait()
		return nil, fmt.Errorf("certmanager: %w", err)
	}
	m.done.Go(func() { m.events.deliver(m.ctx) })
	m.done.Go(func() { r.run(m.ctx) })
	m.done.Go(func() { m.expire(m.ctx) })
	return m, nil
}

// changed makes the reload loop check the source soon. It never blocks.
func (m *Manager) changed() { signal(m.wanted) }

// signal wakes the goroutine that reads from a channel of capacity 1.
func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default: // a signal is already pending
	}
}

// report handles an event of a source.
func (m *Manager) report(e Event) {
	switch polling := e.Kind == Warning && e.Reason == reasonPolling; {
	case e.Kind == Warning && e.Reason == reasonPolled:
		m.counts.polled.Store(true)
	case polling && e.Err == nil:
		m.counts.polling.Store(nil)
	case polling:
		why := e.Err
		if m.counts.polling.Swap(&why) == nil { // else it was reported already
			e.Err = m.pollingError(why)
			m.emit(e)
		}
	default:
		m.emit(e)
	}
}

func (m *Manager) pollingError(err error) error {
	return fmt.Errorf("file events are not reliable; changes are found by polling every %v: %w", m.options.PollInterval, err)
}

// Close ends the watch of the source, the delivery of events and the eviction of connections, and
// waits for the goroutines. It closes no connection, and the Manager's configs continue to serve
// the last set. Setters without an error result do nothing afterwards. Close returns nil. It may be
// called twice, but not by a subscriber.
func (m *Manager) Close() error {
	if m.stop == nil { // New did not make it
		return nil
	}
	m.mu.Lock()
	m.stop()
	m.mu.Unlock()
	m.live.close()
	m.done.Wait()
	return nil
}

// put edits the inputs in service and puts the result in service. Slow operations run without the
// lock; if another change was published meanwhile, put starts again.
func (m *Manager) put(ctx context.Context, rehearse bool, edit func(*inputs)) error {
	for {
		previous := m.current.Load()
		in := previous.in
		edit(&in)
		next, err := newSnapshot(in, &m.options, previous)
		if err != nil {
			return err
		}
		if rehearse {
			if err := next.rehearse(ctx, &m.options, previous, clock.Now()); err != nil {
				return err
			}
		} else {
			next.doubts = previous.doubts
		}
		if done, err := m.swap(previous, next); done || err != nil {
			return err
		}
	}
}

// swap puts next in service if previous still is.
func (m *Manager) swap(previous, next *snapshot) (done bool, err error) {
	m.mu.Lock()
	switch {
	case m.ctx.Err() != nil:
		m.mu.Unlock()
		return false, ErrClosed
	case m.current.Load() != previous:
		m.mu.Unlock()
		return false, nil
	}
	next.generation, next.published = previous.generation+1, clock.Now()
	m.watchKeys(next)
	m.current.Store(next)
	m.setTicketKeys(previous, next)
	m.mu.Unlock()
	m.counts.loads.Add(1)
	m.emit(next.loaded()) // a logger may be slow
	m.warn("source", unreported(next.policy.crls.Warnings, previous.policy.crls.Warnings)...)
	m.warn("regressed", append(unreported(next.doubts, previous.doubts), next.regressions...)...)
	if !next.sameCertificates(previous) {
		signal(m.published)
	}
	if next.policy.fingerprint != previous.policy.fingerprint || next.in.ruled != previous.in.ruled {
		m.live.judgeAll()
	}
	return true, nil
}

// setTicketKeys sets the ticket keys of the source if they have changed.
func (m *Manager) setTicketKeys(previous, next *snapshot) {
	keys := next.in.material.all.TicketKeys
	if len(keys) > 0 && !slices.Equal(keys, previous.in.material.all.TicketKeys) {
		m.tickets.SetSessionTicketKeys(keys)
	}
}

// change edits the inputs set by the program and puts the result in service.
func (m *Manager) change(rehearse bool, edit func(*inputs)) {
	if err := m.put(m.ctx, rehearse, edit); err != nil && m.ctx.Err() == nil {
		m.reject(err)
	}
}

// emit reports an event about the set in service, or about that of e.Generation.
func (m *Manager) emit(e Event) {
	if e.Generation == 0 {
		e.Generation = m.current.Load().generation
	}
	m.events.emit(e)
}

// warn reports warnings with a Reason.
func (m *Manager) warn(reason string, warnings ...error) {
	for _, warning := range warnings {
		m.emit(Event{Kind: Warning, Reason: reason, Err: warning})
	}
}

// reject reports a candidate that was not put in service.
func (m *Manager) reject(err error) {
	m.counts.rejections.Add(1)
	m.counts.lastError.Store(&lastError{when: clock.Now(), text: err.Error()})
	m.emit(Event{Kind: Rejected, Err: err})
}
