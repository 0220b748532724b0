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

// Kind says what an [Event] is about.
type Kind string

const (
	Loaded       Kind = "loaded"          // a set is in service
	Rejected     Kind = "rejected"        // a candidate failed; the last good set stays
	Warning      Kind = "warning"         // something that someone should know; Reason says what it is about
	Expiring     Kind = "expiring"        // a certificate in service ends soon
	Expired      Kind = "expired"         // a certificate in service ended
	CRLOutOfDate Kind = "crl-out-of-date" // a revocation list is past its nextUpdate
	PeerRefused  Kind = "peer-refused"    // a handshake ended, or with ReportOnly would have
	PeerEvicted  Kind = "peer-evicted"    // an open connection was closed

	Issued      Kind = "issued"       // a CA issued a certificate to an ACME source
	OrderFailed Kind = "order-failed" // it did not; the error has its reason and the next try
	CacheFailed Kind = "cache-failed" // an ACME source cannot read or write its cache, or an entry makes no sense
)

const (
	reasonPolling = "polling"
	reasonPolled  = "polled" // no event: a source does not notice changes by itself
)

// Event is one thing that happened. It has no key material.
type Event struct {
	Time       time.Time // when it was noticed
	Kind       Kind      // what it is about; it says which of the fields below are set
	Generation uint64    // of the set in service

	Certificate *CertificateInfo `json:",omitempty"` // Loaded: the default one; Expiring, Expired, Issued
	Names       int              `json:",omitempty"` // Loaded: how many names are served
	Peer        *PeerInfo        `json:",omitempty"` // PeerRefused, PeerEvicted
	Name        string           `json:",omitempty"` // of an ACME source, which the event is about

	// Reason is set for a Warning: "polling" (changes are found by polling alone), "clock" (the
	// clock was set, or the machine slept), "regressed" (a set was taken that is older, serves
	// fewer names or has a chain that may not be complete), "key" (handshakes fail because a key
	// that is not in memory does not sign), "source" (of the source).
	Reason string `json:",omitempty"`

	ReportOnly bool  `json:",omitempty"` // PeerRefused: it was let in; PeerEvicted: it stays
	Err        error `json:"-"`          // why, except for Loaded and Expiring
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

// attrs are the fields of the event's log line.
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

// text is that of Err.
func (e Event) text() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// events logs each event and hands it to the subscribers.
type events struct {
	logger  *slog.Logger
	queue   chan Event
	dropped atomic.Uint64
	panics  sync.Map      // what safely has reported
	refused *rate.Limiter // of log lines: anyone on the network can be refused as often as he likes

	mu          sync.Mutex // guards subscribers
	subscribers []*func(Event)
}

// eventQueue is how many events may wait for slow subscribers. Refused peers can make events faster
// than anyone reads them; what is too many is dropped and counted. They take half of the queue at
// most, so that nobody on the network can keep an operator from hearing of anything else.
const eventQueue = 1024

func (e *events) init(logger *slog.Logger) {
	e.logger = logger
	e.refused = rate.NewLimiter(10, 10)
	e.queue = make(chan Event, eventQueue)
}

// emit never blocks, so that handshakes may call it.
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
	case e.queue <- event:
	default:
		e.dropped.Add(1)
	}
}

// deliver hands events to subscribers until ctx ends.
func (e *events) deliver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-e.queue:
			for _, s := range e.list() {
				e.safely("a subscriber", func() { (*s)(event) })
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

// safely calls a function of the program. A panic of it does not end the program. The first of
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
// closed. Calls are made one at a time and in order, on a goroutine of the Manager. If subscribers
// are too slow, the newest events are dropped; Status counts them.
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
