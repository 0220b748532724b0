package meta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
)

// CertWatcherOptions are the options of [CreateCertWatcher].
type CertWatcherOptions struct {
	// Process is the name of the process that gets the events; empty means the parent.
	Process gen.Atom
}

// MessageCertEvent is one event of a certificate manager.
type MessageCertEvent struct {
	// ID is the watcher, which answers MessageCertReload and MessageCertStatus.
	ID gen.Alias
	// Event is the manager's event: a certmanager.Event.
	Event any
}

// MessageCertReload, as a Call to a watcher, makes the manager load its source now. The result is
// the new status, or the error for which the manager kept its current certificates.
type MessageCertReload struct {
	// Timeout limits the load. 0 means gen.DefaultRequestTimeout.
	Timeout time.Duration
}

// MessageCertStatus, as a Call to a watcher, returns the manager's status, a certmanager.Status.
// Later changes are sent as events.
type MessageCertStatus struct{}

// certWatcher is the meta process of CreateCertWatcher. Its goroutines are that of Start, which
// only waits for the end, and the engine's message goroutine. Events arrive on a goroutine of the
// manager.
type certWatcher struct {
	behavior

	subscribe func(receive func(event any)) (cancel func())
	status    func() any
	reload    func(context.Context) error
	option    gen.Atom      // Process
	to        any           // the receiver of the events; set by Init
	watching  chan struct{} // closed when events are received
	stop      chan struct{}
	stopOnce  sync.Once
	events    atomic.Uint64
	dropped   atomic.Uint64
}

// CreateCertWatcher returns a meta process that sends the events of a certificate manager, such as
// a *certmanager.Manager, to an actor, as [MessageCertEvent], and answers [MessageCertReload] and
// [MessageCertStatus] calls. The watcher ends with its parent, or when the actor has ended. Events
// that do not fit into the actor's mailbox are dropped; Inspect counts them. Any number of watchers
// may watch one manager.
//
// The error wraps [ErrOption].
func CreateCertWatcher[Event, Status any](manager interface {
	Subscribe(receive func(Event)) (cancel func())
	Status() Status
	Reload(context.Context) error
}, options CertWatcherOptions) (gen.MetaBehavior, error) {
	var c check
	c.refuse(manager == nil, "CertManager: is nil; make one (certmanager.New) before this")
	if c.manager(manager, false); c.err() != nil {
		return nil, c.err()
	}
	return &certWatcher{
		subscribe: func(receive func(any)) func() { return manager.Subscribe(func(e Event) { receive(e) }) },
		status:    func() any { return manager.Status() },
		reload:    manager.Reload,
		option:    options.Process, watching: make(chan struct{}), stop: make(chan struct{}),
	}, nil
}

// Init implements gen.MetaBehavior.
func (w *certWatcher) Init(process gen.MetaProcess) error {
	w.process = process
	w.to = ownerOf(process, w.option)
	process.Log().AddFields(gen.LogField{Name: "owner", Value: fmt.Sprint(w.to)})
	return nil
}

// receive is called by the manager, on its goroutine.
func (w *certWatcher) receive(event any) {
	err := w.process.Send(w.to, MessageCertEvent{ID: w.process.ID(), Event: event})
	switch {
	case err == nil:
		w.events.Add(1)
	case errors.Is(err, gen.ErrProcessMailboxFull):
		w.dropped.Add(1) // the mailbox is full: refused peers can cause that, so it does not end the watcher
	default:
		w.stopOnce.Do(func() {
			w.process.Log().Warning("certificate events can't be delivered to %v: %s", w.to, err)
			close(w.stop)
		})
	}
}

// Start implements gen.MetaBehavior.
func (w *certWatcher) Start() error {
	defer w.subscribe(w.receive)()
	close(w.watching)
	<-w.stop
	return nil
}

// HandleCall implements gen.MetaBehavior. If it is called before Start it waits for Start, so that
// no change after the answer is missed.
func (w *certWatcher) HandleCall(_ gen.PID, _ gen.Ref, request any) (any, error) {
	select {
	case <-w.watching:
	case <-w.stop:
	}
	switch m := request.(type) {
	case MessageCertStatus:
		return w.status(), nil
	case MessageCertReload:
		ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(m.Timeout, time.Duration(gen.DefaultRequestTimeout)*time.Second))
		defer cancel()
		if err := w.reload(ctx); err != nil {
			return err, nil
		}
		return w.status(), nil
	}
	return gen.ErrUnsupported, nil
}

// HandleInspect implements gen.MetaBehavior.
func (w *certWatcher) HandleInspect(gen.PID, ...string) map[string]string {
	return map[string]string{
		"process": fmt.Sprint(w.to),
		"events":  strconv.FormatUint(w.events.Load(), 10),
		"dropped": strconv.FormatUint(w.dropped.Load(), 10),
	}
}

// Terminate implements gen.MetaBehavior.
func (w *certWatcher) Terminate(error) {
	w.stopOnce.Do(func() { close(w.stop) })
}
