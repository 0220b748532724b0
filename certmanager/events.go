package certmanager

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/ergotls/ergotls/internal/clock"
)

// Kind is the kind of an [Event].
type Kind string

const (
	Loaded       Kind = "loaded"          // a set is in service
	Rejected     Kind = "rejected"        // a candidate failed; the last good set stays
	Warning      Kind = "warning"         // a fault that needs attention; Reason has its subject
	Expiring     Kind = "expiring"        // a certificate in service expires soon
	Expired      Kind = "expired"         // a certificate in service has expired
	CRLOutOfDate Kind = "crl-out-of-date" // a revocation list is past its nextUpdate
	PeerRefused  Kind = "peer-refused"    // a peer was refused in its handshake, or would be without ReportOnly
	PeerEvicted  Kind = "peer-evicted"    // an open connection was closed

	Issued      Kind = "issued"       // a CA issued a certificate to an ACME source
	OrderFailed Kind = "order-failed" // an order failed; the error has the reason and the time of the next attempt
	CacheFailed Kind = "cache-failed" // an ACME source cannot read or write its cache, or an entry is invalid
)

const (
	reasonPolling = "polling"
	reasonPolled  = "polled" // not an event: a source does not notice changes by itself
)

// Event describes one occurrence. It has no key material.
type Event struct {
	Time       time.Time // when it was noticed
	Kind       Kind      // determines which of the fields below are set
	Generation uint64    // of the set in service

	Certificate *CertificateInfo `json:",omitempty"` // Expiring, Expired, Issued; Loaded: the default certificate
	Names       int              `json:",omitempty"` // Loaded: how many names are served
	Peer        *PeerInfo        `json:",omitempty"` // PeerRefused, PeerEvicted
	Name        string           `json:",omitempty"` // the name of an ACME source that the event is about

	// Reason is set for a Warning: "polling" (changes are found only by polling), "clock" (the clock
	// was set, or the machine slept), "regressed" (the new set is older, serves fewer names, or has a
	// chain that may be incomplete), "key" (handshakes fail because a key outside memory does not
	// sign), "source" (a warning of the source).
	Reason string `json:",omitempty"`

	ReportOnly bool  `json:",omitempty"` // PeerRefused: the peer was accepted; PeerEvicted: its connection stays open
	Err        error `json:"-"`          // the cause; nil for Loaded, Expiring and Issued
}

// MarshalJSON adds the text of Err.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	return json.Marshal(struct {
		plain
		Error string `json:",omitempty"`
	}{plain(e), e.text()})
}

func (e Event) level() slog.Level {
	switch {
	case e.ReportOnly:
		return slog.LevelWarn
	case e.Kind == Loaded, e.Kind == PeerEvicted, e.Kind == Issued:
		return slog.LevelInfo
	case e.Kind == Rejected, e.Kind == Expired:
		return slog.LevelError
	}
	return slog.LevelWarn
}

// attrs returns the fields of the event's log line.
func (e Event) attrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("event", string(e.Kind)), slog.Uint64("generation", e.Generation)}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("reason", e.Reason)
	add("name", e.Name)
	if c := e.Certificate; c != nil {
		attrs = append(attrs, slog.String("certificate", cmp.Or(c.Subject, few(c.Names))), slog.String("serial", c.Serial), slog.Time("notAfter", c.NotAfter))
	}
	if e.Kind == Loaded {
		attrs = append(attrs, slog.Int("names", e.Names))
	}
	if p := e.Peer; p != nil {
		attrs = append(attrs, slog.String("peer", p.Subject), slog.String("serial", p.Serial), slog.String("remote", p.Remote))
		add("local", p.Local)
		add("connection", p.Connection)
	}
	if e.ReportOnly {
		attrs = append(attrs, slog.Bool("reportOnly", true))
	}
	add("error", e.text())
	return attrs
}

// text returns the text of Err.
func (e Event) text() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// events logs each event and passes it to the subscribers.
type events struct {
	logger  *slog.Logger
	queue   chan *Event // pointers, since the garbage collector scans the whole queue
	dropped atomic.Uint64
	panics  sync.Map      // kinds of functions whose panic safely has logged
	refused *rate.Limiter // of log lines: anyone on the network can cause any number of refusals

	mu          sync.Mutex // guards subscribers
	subscribers []*func(Event)
}

// eventQueue is the number of events that may wait for slow subscribers; more are dropped and
// counted. Refused peers can cause events faster than subscribers read them. They fill at most half
// of the queue, so that they cannot displace other events.
const eventQueue = 1024

func (e *events) init(logger *slog.Logger) {
	e.logger = logger
	e.refused = rate.NewLimiter(10, 10)
	e.queue = make(chan *Event, eventQueue)
}

// emit reports an event. It never blocks, so handshakes may call it.
func (e *events) emit(event Event) {
	event.Time = clock.Now()
	if event.Peer != nil {
		event.Err = boundedError(event.Err)
	}
	if event.Kind != PeerRefused && !event.ReportOnly || e.refused.AllowN(event.Time, 1) {
		e.log(event.level(), string(event.Kind), event.attrs()...)
	}
	if len(e.list()) == 0 {
		return
	}
	if (event.Kind == PeerRefused || event.Kind == PeerEvicted) && len(e.queue) >= cap(e.queue)/2 {
		e.dropped.Add(1)
		return
	}
	select {
	case e.queue <- &event:
	default:
		e.dropped.Add(1)
	}
}

// deliver passes events to subscribers until ctx ends.
func (e *events) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-e.queue:
			for _, s := range e.list() {
				e.safely("a subscriber", func() { (*s)(*event) })
			}
		}
	}
}

// log writes a line. A handler that panics does not end the program.
func (e *events) log(level slog.Level, message string, attrs ...slog.Attr) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(os.Stderr, "certificate manager: Options.Logger panicked: %v\n", v)
		}
	}()
	e.logger.LogAttrs(context.Background(), level, "certificate manager: "+message, attrs...)
}

// safely calls a function of the program. Its panic does not end the program. The first panic of
// each kind of function is logged with its stack.
func (e *events) safely(what string, f func()) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if _, known := e.panics.LoadOrStore(what, true); !known {
			e.log(slog.LevelError, what+" panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		}
	}()
	f()
}

func (e *events) list() []*func(Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.subscribers)
}

// Subscribe calls receive for every event from now on, until cancel is called or the Manager is
// closed. It is called for one event at a time, in order, on a goroutine of the Manager. If
// subscribers are too slow, the newest events are dropped; Status counts them.
func (m *Manager) Subscribe(receive func(Event)) (cancel func()) {
	e := &m.events
	e.mu.Lock()
	defer e.mu.Unlock()
	e.subscribers = append(e.subscribers, &receive)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.subscribers = slices.DeleteFunc(e.subscribers, func(s *func(Event)) bool { return s == &receive })
	}
}
