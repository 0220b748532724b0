package certmanager

// Goroutines:
//   - keep (keeper.go): one per Manager, started by New, ended by Close. It looks at the
//     source and tells when something ends.
//   - deliver (events.go): one per Manager, started by New, ended by Close. It calls the
//     subscribers.
//   - the two ends of a rehearsed handshake (rehearse.go): ended by the handshake.
//   - timers of open connections (live.go): stopped by release and by Close.

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Manager serves certificates and decides about peers. Make one with [New]. All its
// methods may be called from any goroutine.
//
// It implements gen.CertManager, and the shape of Ergo's CertAuthManager.
type Manager struct {
	options Options
	tickets *tls.Config // holds the ticket keys, for all servers of the manager
	keyLog  io.Writer   // nil unless asked for; open as long as a config may use it

	current    atomic.Pointer[snapshot]
	lastServer atomic.Pointer[Peer] // that a handshake of ours verified

	mu     sync.Mutex // makes changes one after the other; guards closed
	closed bool

	live   live
	http   sync.Map // connections of ConnState, with the release of each
	events events
	counts counts

	published chan struct{} // wakes the keeper
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// New loads and rehearses the source and returns when its first set is in service, or
// why it cannot be. Close the Manager when it is no longer used.
func New(o Options) (*Manager, error) {
	o, err := o.ready()
	if err != nil {
		return nil, err
	}
	m := &Manager{options: o, tickets: &tls.Config{}, published: make(chan struct{}, 1)}
	if len(o.TicketKeys) > 0 {
		m.tickets.SetSessionTicketKeys(o.TicketKeys)
	}
	m.events.init(o.Logger)
	m.live.init(m)
	got, err := o.Source.read()
	if err != nil {
		return nil, fmt.Errorf("certmanager: %w", err)
	}
	first := inputs{clientAuth: o.ClientAuth, clientRule: o.ClientRule, serverRule: o.ServerRule}
	if err := m.load(got, &first); err != nil {
		return nil, fmt.Errorf("certmanager: %w", err)
	}
	if o.KeyLogFile != "" {
		if m.keyLog, err = openKeyLog(o.KeyLogFile); err != nil {
			return nil, err
		}
		o.Logger.Warn("TLS secrets are written to a file; every connection can be decrypted with it", "file", o.KeyLogFile)
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.done.Go(func() { m.events.deliver(ctx) })
	m.done.Go(func() { newKeeper(m).keep(ctx) })
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

// Reload reads the source now and puts it in service, without waiting for files to
// settle. The error says why the set in service was kept.
func (m *Manager) Reload(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	got, err := m.options.Source.read()
	if err == nil {
		err = m.load(got, nil)
	}
	if err != nil && !errors.Is(err, ErrClosed) {
		m.reject(err)
	}
	if err != nil {
		return fmt.Errorf("certmanager: reload: %w", err)
	}
	return nil
}

// load puts what was read in service. first are the inputs of the first set.
func (m *Manager) load(got *content, first *inputs) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := inputs{}
	var known map[[sha256.Size]byte]*certificate
	if first != nil {
		in = *first
	} else {
		in = m.current.Load().in
		known = in.material.byDigest
		if got.digest == in.digest {
			return nil
		}
	}
	parsed, err := got.parse(known)
	if err != nil {
		return err
	}
	in.material, in.digest, in.update = parsed, got.digest, nil
	return m.publish(in, true)
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
	now := time.Now()
	if rehearse {
		if err := next.rehearse(&m.options, previous, now); err != nil {
			return err
		}
	}
	next.generation, next.published = 1, now
	if previous != nil {
		next.generation = previous.generation + 1
	}
	m.current.Store(next)
	select {
	case m.published <- struct{}{}:
	default: // it is awake already
	}
	m.counts.loads.Add(1)
	m.events.emit(m.loadedEvent(next))
	if previous == nil {
		return nil
	}
	for _, regression := range next.regressions(previous) {
		m.events.emit(Event{Kind: Regressed, Generation: next.generation, Err: regression})
	}
	if next.trust.fingerprint != previous.trust.fingerprint {
		m.live.judgeAll(next)
	}
	return nil
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

// reject reports a candidate that was not put in service.
func (m *Manager) reject(err error) {
	m.counts.rejections.Add(1)
	m.counts.lastError.Store(&lastError{when: time.Now(), text: err.Error()})
	m.events.emit(Event{Kind: Rejected, Generation: m.current.Load().generation, Err: err})
}

// Update puts a certificate in service as the default and for its own names, until
// the source changes. One that fails its rehearsal is reported as an event and not
// used.
func (m *Manager) Update(cert tls.Certificate) {
	c, err := newCertificate(cert, "Update")
	if err != nil {
		m.reject(err)
		return
	}
	m.change(true, func(in *inputs) { in.update = c })
}

// GetCertificateFunc returns a function for tls.Config.GetCertificate.
func (m *Manager) GetCertificateFunc() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return m.current.Load().getCertificate(hello)
	}
}

// GetCertificate returns the default certificate, the zero one if there is none.
func (m *Manager) GetCertificate() tls.Certificate {
	if s := m.current.Load(); len(s.certs) > 0 {
		return s.certs[0].tls
	}
	return tls.Certificate{}
}

// SetClientCAs replaces the CAs that clients are verified with; nil returns to those
// of the source. Like every setter it works at once for new handshakes, and open
// connections that no longer hold are closed. The pool must not be modified afterwards.
func (m *Manager) SetClientCAs(pool *x509.CertPool) {
	m.change(false, func(in *inputs) { in.clientCAs = pool })
}

// ClientCAs returns the CAs in service for clients, nil if there are none. It must not
// be modified.
func (m *Manager) ClientCAs() *x509.CertPool { return m.current.Load().trust.clientCAs }

// SetRootCAs replaces the CAs that servers are verified with; nil returns to those of
// the source.
func (m *Manager) SetRootCAs(pool *x509.CertPool) {
	m.change(false, func(in *inputs) { in.rootCAs = pool })
}

// RootCAs returns the CAs in service for servers; nil is the system's roots.
func (m *Manager) RootCAs() *x509.CertPool { return m.current.Load().trust.rootCAs }

// SetClientAuth replaces what servers ask of clients. The types that verify nothing are
// reported as an event and not used. Where clients are to be verified and no CA
// bundle is there, all are refused until SetClientCAs gives one.
func (m *Manager) SetClientAuth(auth tls.ClientAuthType) {
	if err := checkClientAuth(auth); err != nil {
		m.reject(fmt.Errorf("SetClientAuth: %w", err))
		return
	}
	m.change(false, func(in *inputs) { in.clientAuth, in.clientAuthSet = auth, true })
}

// ClientAuth returns what servers ask of clients.
func (m *Manager) ClientAuth() tls.ClientAuthType { return m.current.Load().trust.clientAuth }

// SetServerName sets the name that ClientTLS("") verifies servers for; empty is the
// name that the connection asked for.
func (m *Manager) SetServerName(name string) {
	m.change(false, func(in *inputs) { in.serverName = name })
}

// ServerName returns the name set by SetServerName.
func (m *Manager) ServerName() string { return m.current.Load().trust.serverName }

// SetClientRule replaces Options.ClientRule.
func (m *Manager) SetClientRule(rule Rule) {
	m.change(false, func(in *inputs) { in.clientRule = rule })
}

// SetServerRule replaces Options.ServerRule.
func (m *Manager) SetServerRule(rule Rule) {
	m.change(false, func(in *inputs) { in.serverRule = rule })
}

// SetTicketKeys replaces Options.TicketKeys, the first for new tickets, all for those
// that clients hold. It does nothing without a key.
func (m *Manager) SetTicketKeys(keys [][32]byte) {
	if len(keys) > 0 {
		m.tickets.SetSessionTicketKeys(keys)
	}
}
