package certmanager

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

const (
	// reportAfter is how long candidates fail before that is reported. A key that is
	// written before its certificate is no failure if the certificate follows.
	reportAfter = time.Second

	// reportAgain is how soon another error of the same source is reported, unless it said that it
	// changed.
	reportAgain = time.Minute

	// loadTimeout bounds a Load, but for the first, which is the source's to bound.
	loadTimeout = 10 * time.Second
)

// reloader runs the reload loop: it loads the source when that may have changed, and puts in
// service what has come to rest.
type reloader struct {
	m         *Manager
	loader    loader
	previous  *Material // what the source returned last
	candidate *material // what was made of it

	next      *time.Timer // the next check, but for polls
	debounce  debounce
	announced bool      // since the last set in service the source called changed
	seen      *material // what the last check found
	seenErr   string

	failing    time.Time // since when candidates have failed; zero if none does
	reported   bool      // it was
	reportedAt time.Time

	polled  time.Time // the last poll, by the clock
	counted time.Time // the same by what timers count
}

// first puts the first set in service. A pair that does not match may be in the middle of its
// replacement: a program may start at that moment.
func (r *reloader) first(ctx context.Context) (err error) {
	for began := time.Now(); ; clock.Sleep(ctx, settle) {
		if r.seen, err = r.load(ctx); err == nil {
			err = r.publish(ctx, r.seen)
		}
		if !errors.Is(err, ErrMismatch) || time.Since(began) >= reportAfter {
			return err
		}
	}
}

// run is the reload loop. It ends with ctx.
func (r *reloader) run(ctx context.Context) {
	r.next = time.NewTimer(time.Hour)
	r.next.Stop() // until there is something to check
	defer r.next.Stop()
	poll := time.NewTimer(r.interval())
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.m.wanted:
			r.announced = true
			r.m.counts.polling.CompareAndSwap(&errUnnoticed, nil)
			r.next.Reset(r.debounce.notice(time.Now()))
		case request := <-r.m.reloads:
			request <- r.check(ctx, true)
		case <-poll.C:
			r.checkClock()
			r.check(ctx, false)
			poll.Reset(r.interval())
		case <-r.next.C:
			r.check(ctx, false)
		}
	}
}

// interval is the time to the next poll. Jitter keeps a fleet that was started together
// from reading a network file system together.
func (r *reloader) interval() time.Duration {
	d := r.m.options.PollInterval
	return d - d/10 + rand.N(d/5+1)
}

// check loads the source and, when it has come to rest on something that is not in service,
// or now is set, puts it in service. The error says why what is in service was kept.
func (r *reloader) check(ctx context.Context, now bool) error {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, loadTimeout)
	got, err := r.load(limited)
	cancel()
	r.compare(got, err, began)
	current := r.m.current.Load().in.material
	if err == nil && got == current {
		r.debounce.end()
		r.succeed(true)
		return nil
	}
	wait := r.debounce.wait(began, false)
	if wait <= 0 && !now && r.lacks(got, current) {
		if wait = r.debounce.wait(began, true); wait > 0 {
			if kept := got.keeping(current); kept != nil {
				_ = r.publish(ctx, kept) // what is given does not wait
			}
		}
	}
	if wait > 0 && !now {
		r.next.Reset(wait)
		return nil
	}
	r.debounce.end()
	if got != nil && got != current {
		failed := r.publish(ctx, got)
		if failed == nil && !now { // Reload may be faster than an event
			r.checkNoticed()
		}
		err = errors.Join(err, failed)
	}
	if err != nil {
		r.fail(began, err, now)
		return err
	}
	r.succeed(false)
	return nil
}

// load asks the source. What it returns is the set in service, or the last candidate, where
// the contents are the same.
func (r *reloader) load(ctx context.Context) (*material, error) {
	got, err := r.loader.load(ctx, r.m.options.Source, r.previous)
	if got == nil {
		return nil, err
	}
	current := r.m.current.Load()
	if got != r.previous {
		r.previous = got
		if next := newMaterial(got, current, r.candidate); !next.same(r.candidate) {
			r.candidate = next
		}
		r.warn()
	}
	if r.candidate.same(current.in.material) {
		return current.in.material, err
	}
	return r.candidate, err
}

// compare notes whether the source has changed since the last check. An error whose text is another
// each time, as those of networks are, is the same state.
func (r *reloader) compare(got *material, err error, began time.Time) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	changed := got != r.seen || (text == "") != (r.seenErr == "")
	noticed := r.debounce.checked(began, changed)
	if changed || text != r.seenErr && (noticed || began.Sub(r.reportedAt) >= reportAgain) {
		r.reported = false
	}
	r.seen, r.seenErr = got, text
}

// lacks says whether something of what is in service is missing in a candidate that can be used.
func (r *reloader) lacks(got, current *material) bool {
	return got != nil && got.err == nil && got.lacks(current)
}

// publish puts a candidate in service or, where it is rejected and has several parts, those parts
// which can be without the others.
func (r *reloader) publish(ctx context.Context, candidate *material) error {
	m, current := r.m, r.m.current.Load()
	put := func(candidate *material) error {
		if candidate.err != nil {
			return candidate.err
		}
		return m.put(ctx, true, func(in *inputs) {
			if in.update != nil && candidate.replaces(in.update, current.certs) {
				in.update = nil
			}
			in.material = candidate
		})
	}
	err := put(candidate)
	if err == nil || ctx.Err() != nil || len(candidate.parts) < 2 || len(candidate.parts) != len(current.in.material.parts) {
		return err
	}
	var errs []error // none where each part is good after those before it
	for i, part := range candidate.parts {
		if part != current.in.material.parts[i] {
			errs = append(errs, put(m.current.Load().in.material.with(i, part)))
		}
	}
	return errors.Join(errs...)
}

// Reload loads the source now and puts it in service, without waiting until the files stop
// changing. The error says why the set in service was kept.
//
// If ctx ends first, its error is returned. The load continues, and its result is put in service as
// it would be without Reload.
func (m *Manager) Reload(ctx context.Context) error {
	request := make(chan error, 1)
	err := ctx.Err()
	for requests := m.reloads; err == nil; requests = nil { // sent once: a nil channel is never ready
		select {
		case requests <- request:
			continue
		case err = <-request:
			if err == nil {
				return nil
			}
		case <-ctx.Done():
			err = ctx.Err()
		case <-m.ctx.Done():
			err = ErrClosed
		}
	}
	return fmt.Errorf("certmanager: reload: %w", err)
}
