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
	// settle is how long a source has to stay the same before it is put in service: files
	// are rarely replaced in one step. maxSettle ends the wait for one that never does.
	settle    = 100 * time.Millisecond
	maxSettle = 2 * time.Second

	// settleLoss and maxSettleLoss are the same where something is taken away: trust, a
	// name, a revocation list. What is written in two steps lacks something in between.
	settleLoss    = 1500 * time.Millisecond
	maxSettleLoss = 15 * time.Second

	// reportAfter is how long candidates fail before that is reported. A key that is
	// written before its certificate is no failure if the certificate follows.
	reportAfter = time.Second

	// reportAgain is how soon another error of the same source is reported, unless it said that it changed.
	reportAgain = time.Minute

	// loadTimeout bounds a Load, but for the first, which is the source's to bound.
	loadTimeout = 10 * time.Second
)

// reloader runs the reload loop: it loads the source when that may have changed, and
// puts in service what has come to rest.
type reloader struct {
	m         *Manager
	loader    loader
	previous  *Material       // what the source returned last
	candidate *material       // what was made of it
	warned    map[string]bool // its warnings

	polled time.Time // the last poll, by the clock
	awake  time.Time // the same by what timers count

	next   *time.Timer // the next look that is no poll
	nextAt time.Time   // zero if none is planned

	announced bool      // since the last set in service the source called changed
	noticed   time.Time // when it did first since the last look; zero if it did not
	changedAt time.Time // when the source was last found changing, or said so
	since     time.Time // since when it has been; zero if it is not

	seen     *material // what the last look found
	seenErr  string
	failing  time.Time // since when candidates have failed; zero if none does
	attempts int       // at the last that did
	reported bool      // it was

	reportedAt time.Time
}

// reloadRequest is a call of Reload.
type reloadRequest chan error

func newReloader(m *Manager) *reloader {
	r := &reloader{m: m, polled: clock.Now(), awake: time.Now(), next: time.NewTimer(time.Hour)}
	r.next.Stop()
	return r
}

// first puts the first set in service. A pair that does not match may be in the middle of its
// replacement: a program may start at that moment.
func (r *reloader) first(ctx context.Context) error {
	for began := time.Now(); ; sleep(ctx, settle) {
		err := r.loadFirst(ctx)
		if !errors.Is(err, ErrMismatch) || time.Since(began) >= reportAfter {
			return err
		}
	}
}

func (r *reloader) loadFirst(ctx context.Context) error {
	var err error
	if r.previous, err = r.loader.load(ctx, r.m.options.Source, r.previous); err != nil {
		return err
	}
	r.candidate = newMaterial(r.previous, r.candidate)
	if err := r.publish(ctx, r.candidate); err != nil {
		return err
	}
	r.seen = r.candidate
	r.warn()
	return nil
}

// run is the reload loop. It ends with ctx.
func (r *reloader) run(ctx context.Context) {
	defer r.next.Stop()
	poll := time.NewTimer(r.interval())
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.m.wanted:
			r.notice()
		case request := <-r.m.reloads:
			request <- r.look(ctx, true)
		case <-poll.C:
			r.checkClock()
			r.look(ctx, false)
			poll.Reset(r.interval())
		case <-r.next.C:
			r.nextAt = time.Time{}
			r.look(ctx, false)
		}
	}
}

// interval is the time to the next poll. Jitter keeps a fleet that was started together
// from reading a network file system together.
func (r *reloader) interval() time.Duration {
	d := r.m.options.PollInterval
	return d - d/10 + rand.N(d/5+1)
}

// notice plans a look for when the source has been at rest for a while.
func (r *reloader) notice() {
	now := time.Now()
	r.announced, r.changedAt = true, now
	r.m.counts.unheard.Store(false)
	if r.noticed.IsZero() {
		r.noticed = now
	}
	if r.since.IsZero() {
		r.since = now
	}
	r.plan(min(settle, max(0, maxSettle-now.Sub(r.noticed))), true)
}

// plan plans a look, or brings the planned one forward; if later is set, it may also put it off.
func (r *reloader) plan(d time.Duration, later bool) {
	when := time.Now().Add(d)
	if r.nextAt.IsZero() || when.Before(r.nextAt) || later {
		r.nextAt = when
		r.next.Reset(d)
	}
}

// look loads the source and, when it has come to rest on something that is not in service,
// or now is set, puts it in service. The error says why what is in service was kept.
func (r *reloader) look(ctx context.Context, now bool) error {
	began := time.Now()
	got, err := r.load(ctx)
	r.settling(got, err, began)
	current := r.m.current.Load().in.material
	if err == nil && got == current {
		r.since = time.Time{}
		r.succeed(true)
		return nil
	}
	if wait := r.unsettled(got, current, began); wait > 0 && !now {
		r.plan(wait, true)
		return nil
	}
	r.since = time.Time{}
	loaded := false
	if got != nil && got != current {
		failed := r.publish(ctx, got)
		loaded, err = failed == nil, errors.Join(err, failed)
	}
	if loaded && !now { // Reload may be faster than an event
		r.heard()
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
	limited, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	got, err := r.loader.load(limited, r.m.options.Source, r.previous)
	if got == nil {
		return nil, err
	}
	current := r.m.current.Load().in.material
	if got != r.previous {
		r.previous = got
		if next := newMaterial(got, current, r.candidate); !next.same(r.candidate) {
			r.candidate = next
		}
		r.warn()
	}
	if r.candidate.same(current) {
		return current, err
	}
	return r.candidate, err
}

// settling notes whether the source has changed since the last look. An error whose text is another each time,
// as those of networks are, is the same state.
func (r *reloader) settling(got *material, err error, began time.Time) {
	said, text := !r.noticed.IsZero(), ""
	if err != nil {
		text = err.Error()
	}
	changed := got != r.seen || (text == "") != (r.seenErr == "")
	if changed && !said {
		r.changedAt = began
	}
	if changed && r.since.IsZero() {
		r.since = began
	}
	if changed || said {
		r.attempts = 0
	}
	if changed || text != r.seenErr && (said || began.Sub(r.reportedAt) >= reportAgain) {
		r.reported = false
	}
	r.noticed, r.seen, r.seenErr = time.Time{}, got, text
}

// unsettled returns how much longer the source has to stay as it is.
func (r *reloader) unsettled(got, current *material, now time.Time) time.Duration {
	if r.since.IsZero() { // a candidate that failed is tried again
		return 0
	}
	rest, most := settle, maxSettle
	if got != nil && got.lacks(current) {
		rest, most = settleLoss, maxSettleLoss
	}
	return min(rest-now.Sub(r.changedAt), most-now.Sub(r.since))
}

// publish puts a candidate in service or, where it is rejected and has several parts, those parts
// which can be without the others.
func (r *reloader) publish(ctx context.Context, candidate *material) error {
	m := r.m
	put := func(candidate *material, served []*certificate) error {
		if err := candidate.join(served); err != nil {
			return err
		}
		return m.put(ctx, true, func(in *inputs) { in.material, in.update = candidate, nil })
	}
	current := m.current.Load()
	var served []*certificate
	if current != nil {
		served = current.certs
	}
	err := put(candidate, served)
	if err == nil || current == nil || ctx.Err() != nil || len(candidate.parts) == 1 || len(candidate.parts) != len(current.in.material.parts) {
		return err
	}
	var errs []error
	for i, part := range candidate.parts {
		if part == current.in.material.parts[i] {
			continue
		}
		if err := put(m.current.Load().in.material.with(i, part), served); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...) // nil where each is good after those before it
}

// warn reports what is new among the warnings of the source.
func (r *reloader) warn() {
	before := r.warned
	r.warned = make(map[string]bool)
	for _, part := range r.previous.flat() {
		for _, warning := range part.Warnings {
			text := warning.Error()
			if !before[text] && !r.warned[text] {
				r.m.emit(Event{Kind: Warning, Reason: "source", Err: warning})
			}
			r.warned[text] = true
		}
	}
}

var errUnheard = errors.New("a change came without an event, as on network, FUSE and overlay file systems and in files that are mounted one by one")

// heard looks, after a load, whether the source had told of the change.
func (r *reloader) heard() {
	c := &r.m.counts
	if !r.announced && !c.polled.Load() && c.polling.Load() == nil && !c.unheard.Swap(true) {
		r.m.emit(Event{Kind: Warning, Reason: reasonPolling, Err: r.m.pollingError(errUnheard)})
	}
	r.announced = false
}

// succeed notes that what the source has is in service. If a rejected candidate was reported and
// the source has gone back to what is in service, that is reported.
func (r *reloader) succeed(back bool) {
	r.failing = time.Time{}
	if back {
		r.announced = false
	}
	if r.m.counts.drift.Swap(false) && back {
		current := r.m.current.Load()
		r.m.events.emit(r.m.loadedEvent(current))
	}
}

// fail notes a candidate that was not put in service, reports it when candidates have
// failed for a while, and plans to try again after ever longer times: what is not yet
// valid will be. How long is counted from the end of the first failed look to the beginning of
// this one, so that two readings of half-written files with a long pause between them are not
// taken for a state that lasts.
func (r *reloader) fail(began time.Time, err error, now bool) {
	if r.m.ctx.Err() != nil {
		return
	}
	if r.failing.IsZero() {
		r.failing = time.Now()
	}
	if now || !r.reported && began.Sub(r.failing) >= reportAfter {
		r.reported, r.reportedAt = true, time.Now()
		r.m.counts.drift.Store(true)
		r.m.reject(err)
	}
	r.plan(min(settle<<min(r.attempts, 16), r.m.options.PollInterval), false)
	r.attempts++
}

// maxStep is how far the clock may be set before that is told. Time servers correct less by making it faster or slower.
const maxStep = 2 * time.Second

// checkClock finds out that the clock was set, or that the machine slept. Timers have not noticed: they count the time
// that the machine was awake.
func (r *reloader) checkClock() {
	now, passed := clock.Now(), time.Since(r.awake)
	step := now.Round(0).Sub(r.polled.Round(0)) - passed
	r.polled, r.awake = now, time.Now()
	if step.Abs() <= maxStep {
		return
	}
	r.m.counts.clockSteps.Add(1)
	r.m.emit(Event{Kind: Warning, Reason: "clock", Err: fmt.Errorf("the clock was set by %v, or the machine slept", step.Round(time.Millisecond))})
	r.m.live.clockStepped()
	r.m.wakeExpire()
	for _, s := range r.m.acme {
		s.clockStepped()
	}
}

// Reload loads the source now and puts it in service, without waiting for files to
// settle. The error says why the set in service was kept.
//
// If ctx ends first its error is returned. The loading goes on then, and what it finds is put in
// service, as it would be without Reload.
func (m *Manager) Reload(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	request := make(reloadRequest, 1)
	var err error
	select {
	case m.reloads <- request:
		select {
		case err = <-request:
		case <-ctx.Done():
			err = ctx.Err()
		case <-m.ctx.Done():
			err = ErrClosed
		}
	case <-ctx.Done():
		err = ctx.Err()
	case <-m.ctx.Done():
		err = ErrClosed
	}
	if err != nil {
		return fmt.Errorf("certmanager: reload: %w", err)
	}
	return nil
}
