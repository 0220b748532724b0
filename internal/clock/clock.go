// Package clock is the wall clock for the validity of certificates, lists and tickets. Tests can
// set it without changing the machine's clock. Durations are measured by package time, which steps
// of a clock do not affect.
package clock

import (
	"context"
	"sync/atomic"
	"time"
)

var ahead atomic.Int64 // of the machine's clock, in nanoseconds

// Now returns the wall clock time.
func Now() time.Time {
	d := time.Duration(ahead.Load())
	if d == 0 {
		return time.Now()
	}
	return time.Now().Round(0).Add(d) // without the monotonic reading, which does not step
}

// Far is the longest time that Until returns: a century. A certificate may expire in the year 9999
// (RFC 5280 section 4.1.2.5), which exceeds a Duration.
const Far = 100 * 365 * 24 * time.Hour

// Until returns the time until t, at most Far and at least -Far, so that a sum with another
// Duration does not overflow.
func Until(t time.Time) time.Duration { return max(-Far, min(Far, t.Sub(Now()))) }

// Sleep waits for d, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Step sets the clock of this process forward, or back if d is negative. It is for tests.
func Step(d time.Duration) { ahead.Add(int64(d)) }
