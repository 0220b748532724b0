// Package clock is the wall clock that certificates, lists and tickets are judged by. It can be set
// in tests, since that of the machine belongs to everybody. Durations are measured by package time,
// which no clock's step touches.
package clock

import (
	"context"
	"sync/atomic"
	"time"
)

var ahead atomic.Int64 // of the machine's clock, in nanoseconds

// Now is the time of day.
func Now() time.Time {
	d := time.Duration(ahead.Load())
	if d == 0 {
		return time.Now()
	}
	return time.Now().Round(0).Add(d) // without the reading of the monotonic clock, which does not step
}

// Far is the longest time that Until returns: a century. A certificate may end in the year
// 9999 (RFC 5280 section 4.1.2.5), which is more than a Duration holds.
const Far = 100 * 365 * 24 * time.Hour

// Until is how long it is until t, Far at most, and -Far at least. Something may be added to it.
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

// Step sets the clock of this process forward, or back where d is negative. It is for tests.
func Step(d time.Duration) { ahead.Add(int64(d)) }
