package certmanager

import (
	"errors"
	"fmt"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// warn reports what is new among the warnings of the source.
func (r *reloader) warn() {
	var all []error
	for _, part := range r.previous.flat() {
		all = append(all, part.Warnings...)
	}
	before := r.m.counts.warnings.Swap(&all)
	r.m.warn("source", unreported(all, *before)...)
}

var errUnnoticed = errors.New("a change came without an event, as on network, FUSE and overlay file systems and in files that are mounted one by one")

// checkNoticed looks, after a load, whether the source had called changed, as it should.
func (r *reloader) checkNoticed() {
	c := &r.m.counts
	if !r.announced && !c.polled.Load() && c.polling.CompareAndSwap(nil, &errUnnoticed) {
		r.m.warn(reasonPolling, r.m.pollingError(errUnnoticed))
	}
	r.announced = false
}

// succeed notes that what the source has is in service. If a rejected candidate was reported and
// the source has gone back to what is in service, that is reported.
func (r *reloader) succeed(back bool) {
	r.failing = time.Time{}
	if back && time.Since(r.debounce.last) > reportAfter { // else the change itself may be on its way
		r.announced = false
	}
	if r.m.counts.drift.Swap(false) && back {
		r.m.emit(r.m.current.Load().loaded())
	}
}

// fail notes a candidate that was not put in service, reports it when candidates have failed for a
// while, and plans to try again: what is not yet valid will be. The next try comes after as long as
// the source has not changed, so at ever longer intervals. How long candidates have failed is
// counted from the end of the first failed check to the beginning of this one, so that two readings
// of half-written files with a long pause between them are not taken for a state that lasts.
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
	r.next.Reset(min(max(settle, time.Since(r.debounce.last)), r.m.options.PollInterval))
}

// maxStep is how far the clock may be set before that is reported. Time servers correct less by
// making it faster or slower.
const maxStep = 2 * time.Second

// checkClock finds out that the clock was set, or that the machine slept. Timers do not: they count
// the time that the machine runs.
func (r *reloader) checkClock() {
	now, passed := clock.Now(), time.Since(r.counted)
	step := now.Round(0).Sub(r.polled.Round(0)) - passed
	r.polled, r.counted = now, time.Now()
	if step.Abs() <= maxStep {
		return
	}
	r.m.counts.clockSteps.Add(1)
	r.m.warn("clock", fmt.Errorf("the clock was set by %v, or the machine slept", step.Round(time.Millisecond)))
	r.m.live.clockStepped()
	signal(r.m.published)
}
