package certmanager

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// Goroutines of a running ACME source, all ended by Close of the Manager:
//   - run: one, started by New.
//   - tend (acme_tend.go): one for each name, started by run or by the first handshake that asks
//     for the name. It obtains, renews and stores the certificate.
//   - serve (acme_start.go): of the listeners that are open while New waits.

// maxOrders is how many orders are under way at a time.
const maxOrders = 4

// acmeState is an ACME source at work for a Manager.
type acmeState struct {
	source *ACME
	o      ACME // with defaults
	m      *Manager
	http   *http.Client

	ctx      context.Context // ends with run; set before started is closed
	started  chan struct{}   // closed when New need not wait any longer
	startErr error           // set before that
	ended    atomic.Bool
	tending  sync.WaitGroup
	orders   chan struct{} // a slot for each order under way
	http01   atomic.Int32  // how many answer HTTP-01

	account acmeAccount
	tokens  acmeTokens
	doors   *acmeDoors // of all sources of m

	mu      sync.Mutex // guards the fields below, and those of each name that say so
	closing bool       // no further name is tended
	names   map[string]*acmeName
}

// acmeName is a name with its certificate.
type acmeName struct {
	name  string
	fixed bool          // one of Domains
	asked chan struct{} // capacity 1: a handshake wants it

	// Guarded by acmeState.mu.
	cert     *tls.Certificate // what is served; nil if there is none
	busy     bool             // an attempt is under way or about to be
	changed  chan struct{}    // closed and replaced when an attempt ends
	failures int              // in a row
	step     int              // of the back-off: failures, since the end of a certificate if that came between
	err      error            // of the last
	due      time.Time        // of the next attempt or renewal
	expiry   *time.Timer      // takes cert out of service

	unsaved atomic.Bool // cert is not in the cache yet; set by tend

	// Only tend's, and start's before it.
	refused bool // by HostPolicy, while cert is in service
	unread  bool // the cache cannot be read
	saves   int  // that failed in a row
	saveAt  time.Time
	lookAt  time.Time // for what another machine got
	info    acmeInfo
	clamped bool   // it was warned of RenewBefore
	last    string // the type of challenge that worked last
}

func newACMEState(source *ACME, o ACME, m *Manager) *acmeState {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if usual, ok := http.DefaultTransport.(*http.Transport); ok { // programs may put another there
		transport = usual.Clone()
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}
	s := &acmeState{
		source: source, o: o, m: m,
		http:    &http.Client{Transport: transport, Timeout: 30 * time.Second},
		started: make(chan struct{}),
		orders:  make(chan struct{}, maxOrders),
		names:   make(map[string]*acmeName),
	}
	s.tokens.certs, s.tokens.http = make(map[string]*tls.Certificate), make(map[string][]byte)
	for _, domain := range o.Domains {
		s.names[domain] = newACMEName(domain, true)
	}
	if len(m.acme) > 0 {
		s.doors = m.acme[0].doors
	} else {
		s.doors = &acmeDoors{doors: make(map[string]*acmeDoor)}
	}
	return s
}

func newACMEName(name string, fixed bool) *acmeName {
	return &acmeName{name: name, fixed: fixed, busy: true, asked: make(chan struct{}, 1), changed: make(chan struct{})}
}

// run works until ctx ends.
func (s *acmeState) run(ctx context.Context) {
	s.ctx = ctx
	s.start(ctx)
	close(s.started)
	<-ctx.Done()
	s.mu.Lock()
	s.closing = true
	for _, n := range s.names {
		if n.expiry != nil {
			n.expiry.Stop()
		}
	}
	s.mu.Unlock()
	s.tending.Wait()
	s.http.CloseIdleConnections()
	s.ended.Store(true)
}

// material is what there is to serve: the Domains in their order, then the other names.
func (s *acmeState) material() *Material {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &Material{Orders: s.status}
	order := slices.Concat(s.o.Domains, slices.DeleteFunc(slices.Sorted(maps.Keys(s.names)), func(name string) bool { return s.names[name].fixed }))
	for _, name := range order {
		if cert := s.names[name].cert; cert != nil {
			m.Certificates = append(m.Certificates, Certificate{Certificate: *cert, Origin: "ACME " + name, Renewed: true})
		}
	}
	return m
}

// adopt puts a certificate of a name in service.
func (s *acmeState) adopt(n *acmeName, cert *tls.Certificate) {
	s.mu.Lock()
	if n.expiry != nil {
		n.expiry.Stop()
	}
	n.cert, n.busy, n.failures, n.step, n.err = cert, false, 0, 0, nil
	n.due = s.plan(n, cert.Leaf)
	if !s.closing {
		n.expiry = time.AfterFunc(clock.Until(endOfService(cert.Leaf)), func() { s.expire(n, cert) })
	}
	n.notify()
	s.mu.Unlock()
	n.info = acmeInfo{}
	s.m.changed()
}

// endOfService is a moment before the end of a certificate, so that on a busy machine too
// it is out of service then.
func endOfService(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-min(leaf.NotAfter.Sub(leaf.NotBefore)/20, time.Second))
}

// clockStepped makes everybody look at the clock again.
func (s *acmeState) clockStepped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.names {
		if n.cert != nil && !s.closing {
			n.expiry.Reset(clock.Until(endOfService(n.cert.Leaf)))
		}
		n.notify()
	}
}

// expire takes a certificate out of service, if it still is in it.
func (s *acmeState) expire(n *acmeName, cert *tls.Certificate) {
	s.mu.Lock()
	if n.cert != cert || s.closing {
		s.mu.Unlock()
		return
	}
	n.cert, n.step = nil, 0 // it is missing from now on: no time for the long waits of an old failure
	s.mu.Unlock()
	s.m.changed()
	info := newCertificateInfo(cert.Leaf, "ACME "+n.name)
	s.m.emit(Event{Kind: Expired, Name: n.name, Certificate: &info, Err: checkDates(cert.Leaf, cert.Leaf.NotAfter.Add(time.Second))})
}

// notify wakes who waits for the name. The caller holds mu.
func (n *acmeName) notify() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// plan is when a certificate is to be renewed. The caller holds mu.
func (s *acmeState) plan(n *acmeName, leaf *x509.Certificate) time.Time {
	window, clamped := renewalWindow(leaf.NotAfter.Sub(leaf.NotBefore), s.o.RenewBefore)
	if clamped && !n.clamped {
		n.clamped = true
		s.emit(Warning, n.name, fmt.Errorf("RenewBefore %v is more than half of the certificate's lifetime; it is renewed %v before its end", s.o.RenewBefore, window))
	}
	return renewalTime(leaf.NotAfter, window, chance())
}

// fail notes that an attempt failed, and plans the next.
func (s *acmeState) fail(n *acmeName, err error) {
	next := s.postpone(n, err)
	s.emit(OrderFailed, n.name, fmt.Errorf("%w; next try %s", err, next.Format(time.RFC3339)))
}

// postpone plans the next attempt after one that failed.
func (s *acmeState) postpone(n *acmeName, err error) (next time.Time) {
	now := clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	n.failures++
	n.step++
	n.busy, n.err = false, err
	remaining := time.Duration(0)
	if n.cert != nil {
		remaining = n.cert.Leaf.NotAfter.Sub(now)
	}
	n.due = now.Add(retryDelay(n.step, isInvalid(err), remaining, retryAfterOf(err, now), chance()))
	n.notify()
	return n.due
}

// emit reports what happened to a name.
func (s *acmeState) emit(kind Kind, name string, err error) {
	s.m.emit(Event{Kind: kind, Reason: reasonOf(kind), Name: name, Err: fmt.Errorf("ACME: %s: %w", name, err)})
}

// OrderStatus is about one name for which a source obtains certificates.
type OrderStatus struct {
	Name     string    // in lower case
	Serving  bool      // there is a certificate, and Status.Certificates has it
	NotAfter time.Time `json:",omitzero"`  // its end; zero without one
	Next     time.Time `json:",omitzero"`  // the renewal, or the next try
	Failures int       `json:",omitempty"` // in a row
	Error    string    `json:",omitempty"` // of the last of them
	Unsaved  bool      `json:",omitempty"` // it could not be stored in the Cache yet; after a restart it is ordered again
}

func (s *acmeState) status() []OrderStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []OrderStatus
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		n := s.names[name]
		status := OrderStatus{Name: name, Serving: n.cert != nil, Next: n.due, Failures: n.failures, Unsaved: n.unsaved.Load()}
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

func reasonOf(kind Kind) string {
	if kind == Warning {
		return "source"
	}
	return ""
}
