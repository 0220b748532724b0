package acme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// clockEvery is how often the clock is looked at, and clockStep what is a step of it.
const (
	clockEvery = 2 * time.Second
	clockStep  = 2 * time.Second
)

// watchClock takes certificates out of service when they end, whatever else goes on. When the clock
// was set, or the machine slept, which timers have not noticed, all names look at it again.
func (s *state) watchClock(ctx context.Context) {
	wall, awake := clock.Now(), time.Now()
	for ctx.Err() == nil {
		sleep(ctx, s.expire())
		step := clock.Now().Round(0).Sub(wall.Round(0)) - time.Since(awake)
		wall, awake = clock.Now(), time.Now()
		if step.Abs() > clockStep {
			s.clockStepped()
		}
	}
}

// expire takes out of service what has ended, and returns how long nothing else ends.
func (s *state) expire() time.Duration {
	next := clockEvery
	var events []certmanager.Event
	s.mu.Lock()
	for _, n := range s.names {
		if n.cert == nil {
			continue
		}
		leaf := n.cert.Leaf
		if left := clock.Until(endOfService(leaf)); left > 0 {
			next = min(next, left)
			continue
		}
		n.cert, n.step = nil, 0 // it is missing from now on: no time for the long waits of an old failure
		n.notify()
		info := certmanager.NewCertificateInfo(leaf, "ACME "+n.text)
		events = append(events, certmanager.Event{Kind: certmanager.Expired, Name: n.text, Certificate: &info,
			Err: fmt.Errorf("%w: on %s", certmanager.ErrExpired, leaf.NotAfter.Format(time.RFC3339))})
	}
	if len(events) > 0 {
		s.material = nil
		defer s.changed()
	}
	s.mu.Unlock()
	for _, e := range events {
		s.report(e)
	}
	return next
}

func (s *state) clockStepped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.names {
		if n.cert == nil && errors.Is(n.err, certmanager.ErrExpired) {
			n.due = clock.Now() // the certificate that was issued may be valid now
		}
		n.notify()
	}
}
