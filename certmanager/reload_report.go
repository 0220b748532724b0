package certmanager

import (
	"errors"
	"fmt"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// warn reports new warnings of the source.
func (r *reloader) warn() {
	var all []error
	for _, part := range r.previous.flat() {
		all = append(all, part.Warnings...)
	}
	before := r.m.counts.warnings.Swap(&all)
	r.m.warn("source", unreported(all, *before)...)
}

var errUnnoticed = errors.New("a change came without an event, as on network, FUSE and overlay file systems and in files that are mounted one by one")

// checkNoticed checks, after a load, that the source called changed as it should.
func (r *reloader) checkNoticed() {
	c := &r.m.counts
	if !r.announced && !c.polled.Load() && c.polling.CompareAndSwap(nil, &errUnnoticed) {
		r.m.warn(reasonPolling, r.m.pollingError(errUnnoticed))
	}
	r.announced = false
}

// succeed records that the contents of the source are in service. back means that the source has
// returned to them after a rejected candidate; this is reported if the rejection was.
func (r *reloader) succeed(back bool) {
	r.failing = time.Time{}
	if back && time.Since(r.debounce.last) > reportAfter { // else another change may follow
		r.announced = false
	}
	if r.m.counts.drift.Swap(false) && back {
		r.m.emit(r.m.current.Load().loaded())
	}
}

// fail records a rejected candidate, reports it if candidates have failed for reportAfter, and
// schedules another attempt, for example for a certificate that is not yet valid. The interval is
// the time since the last change of the source, so it grows. The time of failing is counted from
// the end of the first failed check to the beginning of this one, so that two slow reads of
// half-written files do not count as a lasting failure.
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

// maxStep is how far the clock may be set without a report. Time daemons correct smaller errors
// gradually.
const maxStep = 2 * time.Second

// checkClock detects that the clock was set or the machine slept. Timers do not notice: they count
// only the time that the machine runs.
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
