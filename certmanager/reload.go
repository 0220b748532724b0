package certmanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

const (
	// reportAfter is how long candidates must fail before that is reported. A key written shortly
	// before its certificate is not a failure.
	reportAfter = time.Second

	// reportAgain is the minimum time between two reports about a source that has not called changed.
	reportAgain = time.Minute

	// loadTimeout limits a Load, except the first, which the source itself must limit. A first one
	// that takes longer is logged.
	loadTimeout = 10 * time.Second
)

// reloader runs the reload loop: it loads the source when it may have changed, and puts its
// contents in service once they are stable.
type reloader struct {
	m         *Manager
	loader    loader
	previous  *Material // what the source returned last
	candidate *material // made from previous

	next      *time.Timer // the next check other than a poll
	debounce  debounce
	announced bool      // the source has called changed since the last set was put in service
	seen      *material // what the last check found
	seenErr   string

	failing    time.Time // when candidates began to fail; zero if the last did not
	reported   bool      // the failure was reported
	reportedAt time.Time

	polled  time.Time // the last poll, by the wall clock
	counted time.Time // the same by the monotonic clock
}

// first puts the first set in service. It retries a pair that does not match: the program may have
// started in the middle of its replacement.
func (r *reloader) first(ctx context.Context) (err error) {
	slow := time.AfterFunc(loadTimeout, func() {
		r.m.events.log(slog.LevelWarn, fmt.Sprintf("New waits for the first Load of %T, which has taken %v so far", r.m.options.Source, loadTimeout))
	})
	defer slow.Stop()
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

// interval returns the time to the next poll. Jitter keeps machines that were started together from
// reading a network file system at the same time.
func (r *reloader) interval() time.Duration {
	d := r.m.options.PollInterval
	return d - d/10 + rand.N(d/5+1)
}

// check loads the source and puts its contents in service if they are new and either stable or now
// is set. The error is the reason for keeping the set in service.
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
	if usable := got.usable(current); wait <= 0 && !now && usable.lacks(current) {
		if wait = r.debounce.wait(began, true); wait > 0 {
			if kept := usable.keeping(current); kept != nil {
				_ = r.publish(ctx, kept) // additions do not wait
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
		if failed == nil && !now { // Reload may precede the file event
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

// load loads the source. If the contents are the same, it returns the material in service or the
// last candidate.
func (r *reloader) load(ctx context.Context) (*material, error) {
	got, err := r.loader.load(ctx, r.m.options.Source, r.previous)
	if got == nil {
		return nil, err
	}
	current := r.m.current.Load()
	isNew := got != r.previous
	if isNew || r.candidate.err != nil { // the error may be one of dates
		if next := newMaterial(got, current, r.candidate); !next.same(r.candidate) {
			r.candidate = next
		}
	}
	if isNew {
		r.previous = got
		r.warn()
	}
	if r.candidate.same(current.in.material) {
		return current.in.material, err
	}
	return r.candidate, err
}

// compare records whether the source has changed since the last check. Two errors are the same
// state even if their texts differ, as those of networks do.
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

// publish puts a candidate in service or, if it is rejected and has several parts, the parts that
// work without the others.
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
	err, parts := put(candidate), current.in.material.own()
	if err == nil || ctx.Err() != nil || len(candidate.parts) < 2 || len(candidate.parts) != len(parts) {
		return err
	}
	var errs []error // empty if each part is good after those before it
	for i, part := range candidate.parts {
		if part != parts[i] {
			errs = append(errs, put(m.current.Load().in.material.with(i, part)))
		}
	}
	if now := m.current.Load().in.material; now.kept {
		if less := now.keepingOnly(candidate); less != now {
			errs = append(errs, put(less))
		}
	}
	return errors.Join(errs...)
}

// Reload loads the source now and puts its contents in service, without waiting until the files
// stop changing. The error is the reason for keeping the set in service.
//
// If ctx ends first, Reload returns its error. The load continues, and its result is put in service
// as usual.
func (m *Manager) Reload(ctx context.Context) error {
	request := make(chan error, 1)
	err := ctx.Err()
	for requests := m.reloads; err == nil; requests = nil { // nil after one send: a nil channel is never ready
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
