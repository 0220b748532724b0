package acme

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ergotls/ergotls/certmanager"
)

// Goroutines. All except the last end before Watch returns:
//   - Watch: one, started by the Manager. It starts the others.
//   - watchClock (maintain.go): one, started by Watch. It removes expired certificates from
//     service.
//   - maintain (maintain.go): one for each name, started by Watch or by the first handshake that
//     asks for the name. It obtains, renews and stores the certificate.
//   - those of the listeners that are open while New waits (listen.go).
//   - guard (errors.go): one for each call of Cache, DNS and HostPolicy. It ends when the call
//     returns, possibly after Watch.

const (
	// maxOrders is how many orders of a kind run at a time.
	maxOrders = 4

	// watchTimeout is how long Load waits for Watch.
	watchTimeout = 10 * time.Second
)

// place is a kind of orders. Each kind has its own limit, so that failing new orders do not block
// renewals, and names that clients ask for do not block Domains.
type place struct{ fixed, renewal bool }

// state is the state of a Source in use by a Manager.
type state struct {
	o       Source // with defaults
	cas     []*ca  // in the order of use
	changed func()
	report  func(certmanager.Event)

	ctx      context.Context // ends with Watch
	watching atomic.Bool     // Watch was called
	watched  chan struct{}   // closed when the fields above are set
	started  chan struct{}   // closed when New need not wait longer
	startErr error           // set before started is closed
	startEnd time.Time       // when New stops waiting; set by start, zero if it does not wait
	loaded   atomic.Bool     // the first Load has returned

	sni map[string]bool // server names of CAs for Domains

	maintaining sync.WaitGroup
	slots       map[place]chan struct{} // for running orders
	limit       *rate.Limiter           // limits orders of other names
	http01      atomic.Int32            // how many handlers answer HTTP-01
	answers     sync.Map                // of open challenges of this machine: []byte by cache key
	storageOK   atomic.Bool             // tryStorage has succeeded
	limited     rate.Sometimes          // reports that limit is reached
	panicked    sync.Once               // reports the first panic of HostPolicy

	// Numbers of abandoned calls that still run.
	abandoned struct{ cache, dns, policy atomic.Int32 }

	mu       sync.Mutex // guards the fields below, and some fields of each name
	names    map[string]*name
	material *certmanager.Material // nil if it must be made again
}

// binding guards Source.state.
var binding sync.Mutex

var errBound = errors.New("the acme.Source belongs to another Manager that is not closed: make a new one")

// bind returns the state, which the first call makes.
func (a *Source) bind() (*state, error) {
	binding.Lock()
	defer binding.Unlock()
	if a.state == nil {
		o, err := a.ready()
		if err != nil {
			return nil, err
		}
		a.state = newState(o)
	}
	return a.state, nil
}

func newState(o Source) *state {
	s := &state{
		o: o, watched: make(chan struct{}), started: make(chan struct{}), names: make(map[string]*name), sni: make(map[string]bool),
		slots: make(map[place]chan struct{}),
		limit: rate.NewLimiter(rate.Every(time.Hour/time.Duration(o.OrdersPerHour)), o.OrdersPerHour), limited: rate.Sometimes{Interval: time.Hour},
	}
	for _, p := range []place{{true, true}, {true, false}, {false, true}, {false, false}} {
		s.slots[p] = make(chan struct{}, maxOrders)
	}
	for _, ca := range append([]CA{{o.Directory, o.Roots, o.ExternalAccount, o.Profile}}, o.Fallbacks...) {
		s.cas = append(s.cas, newCA(s, ca))
	}
	for _, domain := range o.Domains {
		s.names[domain] = s.newName(domain, true)
		s.sni[s.names[domain].sni()] = true
	}
	return s
}

// Load implements [certmanager.Source]. The first call returns when the Domains have certificates,
// with Background at once.
func (a *Source) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	s, err := a.bind()
	if err != nil {
		return nil, err
	}
	if previous == nil && s.loaded.Load() {
		return nil, errBound
	}
	select {
	case <-s.watched:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(watchTimeout):
		return nil, errors.New("the acme.Source obtains nothing: its Watch does not run")
	}
	select {
	case <-s.started:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.startErr != nil {
		return nil, s.startErr
	}
	s.loaded.Store(true)
	return s.current(), nil
}

// Watch implements [certmanager.Source]. It obtains and renews certificates until ctx ends.
func (a *Source) Watch(ctx context.Context, changed func(), report func(certmanager.Event)) error {
	s, err := a.bind()
	if err != nil {
		return err // Load returns it too
	}
	if s.watching.Swap(true) {
		return errBound
	}
	s.ctx, s.changed, s.report = ctx, changed, report
	close(s.watched)
	s.run(ctx)
	binding.Lock()
	defer binding.Unlock()
	a.state = nil
	return ctx.Err()
}

// run works until ctx ends.
func (s *state) run(ctx context.Context) {
	s.maintaining.Go(func() { s.watchClock(ctx) })
	s.startErr = s.start(ctx)
	close(s.started)
	<-ctx.Done()
	s.mu.Lock() // after this no name is added and no goroutine waits for one
	for _, n := range s.names {
		n.notify()
	}
	s.mu.Unlock()
	s.maintaining.Wait()
	for _, c := range s.cas {
		c.network.CloseIdleConnections()
	}
}

// current returns the certificates to serve: those of Domains, in order. Other names are served on
// demand.
func (s *state) current() *certmanager.Material {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.material != nil {
		return s.material
	}
	m := &certmanager.Material{GetCertificate: s.getCertificate, Challenge: s.answerTLS, HTTPChallenge: s.answerHTTP, Orders: s.status}
	for _, domain := range s.o.Domains {
		if cert := s.names[domain].cert; cert != nil {
			m.Certificates = append(m.Certificates, certmanager.Certificate{Certificate: *cert, Origin: "ACME " + domain, Renewed: true})
		}
	}
	s.material = m
	return m
}

func (s *state) status() []certmanager.OrderStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []certmanager.OrderStatus
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		n := s.names[name]
		status := certmanager.OrderStatus{Name: name, OnDemand: !n.fixed, Serving: n.cert != nil, Next: n.due, Failures: n.failures, Unsaved: n.unsaved.Load() != nil, CA: n.ca.Load().Directory}
		if kind := n.kind.Load(); kind != nil {
			status.Challenge = *kind
		}
		if record := n.record.Load(); record != nil {
			status.Record, status.RecordUntil = record.String(), record.Until
		}
		if n.cert != nil {
			status.NotAfter = n.cert.Leaf.NotAfter
		}
		if n.err != nil {
			status.Error = n.err.Error()
		}
		all = append(all, status)
	}
	return all
}

// emit reports an event for a name.
func (s *state) emit(kind certmanager.Kind, name string, err error) {
	event := certmanager.Event{Kind: kind, Name: name, Err: fmt.Errorf("ACME: %s: %w", name, err)}
	if kind == certmanager.Warning {
		event.Reason = "source"
	}
	s.report(event)
}

func (s *state) warn(name string, err error) { s.emit(certmanager.Warning, name, err) }

// emitOnce reports a fault of a name once while it lasts. A nil err means that it has ended.
func (s *state) emitOnce(kind certmanager.Kind, n *name, fault string, err error) {
	if err != nil && !n.reported[fault] {
		s.emit(kind, n.text, err)
	}
	n.reported[fault] = err != nil
}

func sleep(ctx context.Context, d time.Duration) { sleepUnless(ctx, d, nil) }

// sleepUnless sleeps for d, or until ctx ends or changed is closed.
func sleepUnless(ctx context.Context, d time.Duration, changed <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	case <-changed:
	}
}
