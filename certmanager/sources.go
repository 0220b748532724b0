package certmanager

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// Static is a [Source] of values in memory. They must not be modified afterwards; [Manager.Update]
// and the setters replace them.
type Static struct {
	// Certificates are the chains with their keys. A key may be any [crypto.Signer], for
	// example one in an HSM. The first is the default, for clients without SNI.
	Certificates []tls.Certificate

	// ClientCAs verify clients, RootCAs verify servers. Nil RootCAs means the system's roots.
	ClientCAs, RootCAs *x509.CertPool

	// CRLs are revocation lists. CRLIssuers are the CAs that signed them; they are needed because a
	// CertPool cannot be searched.
	CRLs       []*x509.RevocationList
	CRLIssuers []*x509.Certificate

	// ECHKeys are the server's Encrypted Client Hello keys.
	ECHKeys []tls.EncryptedClientHelloKey
}

// Load implements [Source].
func (s Static) Load(_ context.Context, previous *Material) (*Material, error) {
	if previous != nil {
		return previous, nil
	}
	m := &Material{
		ClientCAPool: s.ClientCAs, RootCAPool: s.RootCAs,
		CRLs: s.CRLs, CRLIssuers: s.CRLIssuers, ECHKeys: s.ECHKeys,
	}
	for i, cert := range s.Certificates {
		m.Certificates = append(m.Certificates, Certificate{Certificate: cert, Origin: fmt.Sprintf("Static.Certificates[%d]", i)})
	}
	return m, nil
}

// Watch implements [Source]. Static never changes.
func (s Static) Watch(ctx context.Context, _ func(), _ func(Event)) error {
	<-ctx.Done()
	return nil
}

// Sources combines several sources. The first certificate of the first source that has one is the
// default; bundles and revocation lists are joined. A source that cannot be loaded, or whose new
// material cannot be put in service, does not affect the others.
type Sources []Source

// Load implements [Source].
func (ss Sources) Load(ctx context.Context, previous *Material) (*Material, error) {
	before, loaders := make([]*Material, len(ss)), make([]loader, len(ss))
	if previous != nil {
		before, loaders = previous.Parts, previous.Tag.([]loader)
	}
	if end, ok := ctx.Deadline(); ok { // a source that hangs leaves time for the others
		limited, cancel := context.WithTimeout(ctx, time.Until(end)/4*3)
		defer cancel()
		ctx = limited
	}
	parts, errs := make([]*Material, len(ss)), make([]error, len(ss))
	var all sync.WaitGroup
	for i, s := range ss {
		if s == nil {
			return nil, fmt.Errorf("%w: Sources[%d] is nil", ErrInvalid, i)
		}
		all.Go(func() { parts[i], errs[i] = loaders[i].load(ctx, s, before[i]) })
	}
	all.Wait()
	for i, part := range parts {
		if part == nil {
			parts[i] = before[i]
		}
	}
	err := errors.Join(errs...)
	switch {
	case slices.Contains(parts, nil): // a source that never returned a Material
		return nil, err
	case previous != nil && slices.Equal(parts, before):
		return previous, err
	}
	return &Material{Parts: parts, Tag: loaders}, err
}

// Watch implements [Source].
func (ss Sources) Watch(ctx context.Context, changed func(), report func(Event)) error {
	var all sync.WaitGroup
	for _, s := range ss {
		if s != nil { // Load returns an error for a nil source
			all.Go(func() { keepWatching(ctx, s, defaultPollInterval, changed, report) })
		}
	}
	all.Wait()
	return nil
}

// watchWorks is how long Watch must run before an earlier failure counts as over.
const watchWorks = time.Second

// keepWatching calls Watch until ctx ends. If Watch fails, it is called again after the given time.
func keepWatching(ctx context.Context, s Source, again time.Duration, changed func(), report func(Event)) {
	over := time.AfterFunc(time.Hour, func() { report(Event{Kind: Warning, Reason: reasonPolling}) })
	over.Stop()
	defer over.Stop()
	for {
		err := watchSafely(ctx, s, changed, report)
		over.Stop()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			report(Event{Kind: Warning, Reason: reasonPolled})
			return
		}
		report(Event{Kind: Warning, Reason: reasonPolling, Err: err})
		clock.Sleep(ctx, again)
		if ctx.Err() != nil {
			return
		}
		changed() // changes since Watch failed were not noticed
		over.Reset(watchWorks)
	}
}

// loader calls Load of one source for one Manager, one call at a time. It abandons a call that
// ignores its context, for example in a file system that hangs.
type loader struct {
	pending <-chan result[*Material] // an abandoned call; nil if there is none
	late    *Material                // what one returned too late; a call that starts from it may be faster
}

var errNoMaterial = errors.New("the source returned neither a Material nor an error")

func (l *loader) load(ctx context.Context, s Source, previous *Material) (*Material, error) {
	if l.pending != nil {
		select {
		case r := <-l.pending:
			l.late = cmp.Or(r.value, l.late)
		default:
			return l.late, errors.New("the source has still not answered")
		}
	}
	previous = cmp.Or(l.late, previous)
	l.pending = start("the source", func() (*Material, error) { return loadChecked(ctx, s, previous) })
	select {
	case r := <-l.pending:
		l.pending, l.late = nil, nil
		return r.value, r.err
	case <-ctx.Done():
		return l.late, fmt.Errorf("the source has not answered: %w", ctx.Err())
	}
}

// loadChecked calls Load and checks the result.
func loadChecked(ctx context.Context, s Source, previous *Material) (*Material, error) {
	m, err := s.Load(ctx, previous)
	switch {
	case m == nil && err == nil:
		err = errNoMaterial
	case m != nil && m != previous:
		if e := m.check(); e != nil {
			return nil, errors.Join(err, e)
		}
	}
	return m, err
}

// watchSafely calls Watch and returns a panic as an error.
func watchSafely(ctx context.Context, s Source, changed func(), report func(Event)) (err error) {
	defer recovered("the source", &err)
	return s.Watch(ctx, changed, report)
}

// result is the result of a call.
type result[T any] struct {
	value T
	err   error
}

// start calls a function on a new goroutine. If it panics, as a parser may, or ends its goroutine
// with runtime.Goexit, the result is an error that names who.
func start[T any](who string, call func() (T, error)) <-chan result[T] {
	done := make(chan result[T], 1)
	go func() {
		r := result[T]{err: fmt.Errorf("%w: %s ended its goroutine (runtime.Goexit) instead of returning", ErrInvalid, who)}
		defer func() { done <- r }()
		defer recovered(who, &r.err)
		r.value, r.err = call()
	}()
	return done
}
