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
	// CertManager is a *certmanager.Manager, or another that offers the same
	//
	//	Watch(receive func(event any)) (status func() any, cancel func())
	//	Reload(context.Context) error
	CertManager gen.CertManager
	// Process is the name of the process that gets the events; empty means the parent.
	Process gen.Atom
}

// MessageCertEvent is one event of a certificate manager.
type MessageCertEvent struct {
	// ID is the watcher: call it with MessageCertReload and MessageCertStatus.
	ID gen.Alias
	// Event is the manager's: a certmanager.Event.
	Event any
}

// MessageCertReload, as a Call to a watcher, makes the manager read its source now. The
// result is the status after it, or the error for which the set in service was kept.
type MessageCertReload struct {
	// Timeout bounds the reading. 0 means gen.DefaultRequestTimeout.
	Timeout time.Duration
}

// MessageCertStatus, as a Call to a watcher, is answered with the manager's status: a certmanager.Status.
type MessageCertStatus struct{}

// watchable is what a manager offers to a watcher.
type watchable interface {
	Watch(receive func(event any)) (status func() any, cancel func())
	Reload(context.Context) error
}

// certWatcher is the meta process of CreateCertWatcher. Its goroutines are Start's, which only waits for the end, and the engine's
// message goroutine; events come on the manager's.
type certWatcher struct {
	behavior

	manager  watchable
	to       any // who gets the events
	toOption gen.Atom
	process  gen.MetaProcess
	status   func() any    // set by Start
	watching chan struct{} // closed: status is set
	stop     chan struct{}
	stopOnce sync.Once
	events   atomic.Uint64
	dropped  atomic.Uint64
}

// CreateCertWatcher returns a meta process that sends the events of a certificate manager to
// an actor, as [MessageCertEvent], and answers [MessageCertReload] and [MessageCertStatus] calls. It
// ends with its parent, or when the actor has ended. Events for which the actor's mailbox has no room are dropped, and
// counted in Inspect. Any number of watchers may watch one manager.
//
// The error wraps [ErrOption].
func CreateCertWatcher(options CertWatcherOptions) (gen.MetaBehavior, error) {
	manager, ok := options.CertManager.(watchable)
	if !ok {
		return nil, fmt.Errorf("%w: CertManager: %T has no events to watch; use a *certmanager.Manager", ErrOption, options.CertManager)
	}
	return &certWatcher{manager: manager, toOption: options.Process, watching: make(chan struct{}), stop: make(chan struct{})}, nil
}

// Init implements gen.MetaBehavior.
func (w *certWatcher) Init(process gen.MetaProcess) error {
	w.process = process
	w.to = process.Parent()
	if w.toOption != "" {
		w.to = w.toOption
	}
	process.Log().AddFields(gen.LogField{Name: "owner", Value: fmt.Sprint(w.to)})
	return nil
}

// receive is called by the manager.
func (w *certWatcher) receive(event any) {
	err := w.process.Send(w.to, MessageCertEvent{ID: w.process.ID(), Event: event})
	switch {
	case err == nil:
		w.events.Add(1)
	case errors.Is(err, gen.ErrProcessMailboxFull):
		w.dropped.Add(1) // peers that are refused can fill it, and are not to end the watch
	default:
		w.stopOnce.Do(func() {
			w.process.Log().Warning("certificate events can't be delivered to %v: %s", w.to, err)
			close(w.stop)
		})
	}
}

// Start implements gen.MetaBehavior.
func (w *certWatcher) Start() error {
	var cancel func()
	w.status, cancel = w.manager.Watch(w.receive)
	defer cancel()
	close(w.watching)
	<-w.stop
	return nil
}

// HandleMessage implements gen.MetaBehavior.
func (w *certWatcher) HandleMessage(from gen.PID, message any) error {
	w.process.Log().Warning("unknown message from %s ignored: %T", from, message)
	return nil
}

// HandleCall implements gen.MetaBehavior.
func (w *certWatcher) HandleCall(_ gen.PID, _ gen.Ref, request any) (any, error) {
	<-w.watching
	switch m := request.(type) {
	case MessageCertStatus:
		return w.status(), nil
	case MessageCertReload:
		ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(m.Timeout, time.Duration(gen.DefaultRequestTimeout)*time.Second))
		defer cancel()
		if err := w.manager.Reload(ctx); err != nil {
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
