package acme

import (
	"context"
	"errors"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// clockEvery is how often the clock is looked at, and clockStep what is a step of it.
const (
	clockEvery = 2 * time.Second
	clockStep  = 2 * time.Second
)

// watchClock makes all names look at the clock again when it was set, or the machine slept: timers
// have not noticed.
func (s *state) watchClock(ctx context.Context) {
	wall, awake := clock.Now(), time.Now()
	for ctx.Err() == nil {
		sleep(ctx, clockEvery)
		step := clock.Now().Round(0).Sub(wall.Round(0)) - time.Since(awake)
		wall, awake = clock.Now(), time.Now()
		if step.Abs() > clockStep {
			s.clockStepped()
		}
	}
}

func (s *state) clockStepped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.names {
		if n.expiry != nil && !s.closing {
			n.expiry.Reset(clock.Until(endOfService(n.cert.Leaf)))
		}
		if n.cert == nil && errors.Is(n.err, certmanager.ErrExpired) {
			n.due = clock.Now() // the certificate that was issued may be valid now
		}
		n.notify()
	}
}
