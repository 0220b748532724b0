package certmanager

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

const (
	// glance is how long after an event a source is looked at: events come in bursts.
	glance = 10 * time.Millisecond

	// settle is how long a source has to stay the same before it is loaded: files
	// are rarely replaced in one step.
	settle = 100 * time.Millisecond

	// maxSettle ends the wait for a source that never comes to rest; the rehearsal
	// keeps what is half written out of service.
	maxSettle = 2 * time.Second

	// patience is how long candidates may fail before that is reported. A key that is
	// written before its certificate is no failure if the certificate follows.
	patience = time.Second

	// driftAfter is how long a source may differ from what is served before that is
	// told again, as drift.
	driftAfter = time.Minute
)

// keeper looks after the source of a Manager, and after the dates of what is in service.
type keeper struct {
	m        *Manager
	watch    *watcher
	calendar calendar

	polled    time.Time // the last poll, by the clock
	awake     time.Time // the same by what timers count
	announced bool      // since the last load something told of a change, or of why nothing would
	blind     error     // why changes are found by polling alone; nil as far as is known
	unheard   bool      // blind is that a change came without an event

	again   *time.Timer // the next look that is not a poll
	againAt time.Time   // zero if none is planned

	seen     [sha256.Size]byte // what the source was at the last look
	seenAt   time.Time         // since when
	restless time.Time         // since when it has been changing; zero if it is not

	failing  time.Time         // since when candidates have failed; zero if none does
	failed   [sha256.Size]byte // the last that did
	attempts int               // at that one
	reported bool
}

func newKeeper(m *Manager) *keeper {
	k := &keeper{m: m, again: time.NewTimer(time.Hour), watch: newWatcher(m.options.Source.paths()), polled: clock.Now(), awake: time.Now()}
	k.watchAgain()
	return k
}

// keep runs until ctx ends.
func (k *keeper) keep(ctx context.Context) {
	defer k.watch.close()
	defer k.again.Stop()
	k.again.Stop()
	poll := time.NewTimer(k.interval())
	defer poll.Stop()
	deadline := time.NewTimer(k.tell())
	defer deadline.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.watch.changes():
			k.announced, k.unheard = true, false
			k.lookIn(glance)
		case <-k.m.wanted:
			k.announced = true
			k.lookIn(glance)
		case err := <-k.watch.failures():
			k.blinded(err)
			k.lookIn(glance) // events may have been lost
		case <-poll.C:
			k.poll()
			poll.Reset(k.interval())
		case <-k.again.C:
			k.againAt = time.Time{}
			k.look()
		case <-k.m.published:
		case <-deadline.C:
		}
		deadline.Reset(k.tell())
	}
}

// interval is the time to the next poll. Jitter keeps a fleet that was started together
// from reading a network file system together.
func (k *keeper) interval() time.Duration {
	d := k.m.options.PollInterval
	return d - d/10 + rand.N(d/5+1)
}

// poll looks at what no event tells of: the source, the clock, and whether there are events again.
func (k *keeper) poll() {
	k.checkClock()
	before := k.blind
	k.blind, k.announced = nil, k.announced || before != nil
	k.look() // and watches again
	switch {
	case k.blind != nil: // it still is
	case k.unheard:
		k.blind = before
	default:
		k.m.counts.polling.Store(nil)
	}
}

// watchAgain watches what there is to be watched now.
func (k *keeper) watchAgain() {
	if err := k.watch.renew(); err != nil {
		k.blinded(err)
	}
}

var errUnheard = errors.New("a change came without an event, as on network, FUSE and overlay file systems and in files that are mounted one by one")

// blinded notes that file events are missing or were lost, and tells it where that is news.
func (k *keeper) blinded(err error) {
	k.announced = true
	k.blind = fmt.Errorf("file events are not reliable; changes are found by polling every %v: %w", k.m.options.PollInterval, err)
	if text := k.blind.Error(); k.m.counts.polling.Swap(&text) == nil {
		k.m.emit(Event{Kind: Polling, Err: k.blind})
	}
}

// maxStep is how far the clock may be set before that is told. Time servers correct less by making it faster or slower.
const maxStep = 2 * time.Second

// checkClock finds out that the clock was set, or that the machine slept. Timers have not noticed: they count the time
// that the machine was awake.
func (k *keeper) checkClock() {
	now, passed := clock.Now(), time.Since(k.awake)
	step := now.Round(0).Sub(k.polled.Round(0)) - passed
	k.polled, k.awake = now, time.Now()
	if step.Abs() <= maxStep {
		return
	}
	k.m.counts.clockSteps.Add(1)
	k.m.emit(Event{Kind: ClockStepped, Err: fmt.Errorf("the clock was set by %v, or the machine slept", step.Round(time.Millisecond))})
	k.m.live.clockStepped()
	for _, s := range k.m.acme {
		s.clockStepped()
	}
}

// lookIn plans a look, or brings the planned one forward.
func (k *keeper) lookIn(d time.Duration) {
	when := time.Now().Add(d)
	if k.againAt.IsZero() || when.Before(k.againAt) {
		k.againAt = when
		k.again.Reset(d)
	}
}

// look reads the source and, when it has come to rest on something that is not in
// service, loads it.
func (k *keeper) look() {
	k.watchAgain()
	now := time.Now()
	got, number, err := k.m.read()
	digest := sha256.Sum256(fmt.Append(nil, err))
	if err == nil {
		digest = got.digest
	}
	if digest != k.seen {
		k.seen, k.seenAt = digest, now
		if k.restless.IsZero() {
			k.restless = now
		}
	}
	if digest == k.m.current.Load().in.digest {
		k.restless = time.Time{}
		k.succeed()
		return
	}
	if wait := settle - now.Sub(k.seenAt); wait > 0 && now.Sub(k.restless) < maxSettle {
		k.lookIn(wait)
		return
	}
	k.restless = time.Time{}
	stale := false
	if err == nil {
		stale, err = k.m.load(got, number)
	}
	switch {
	case stale:
		k.lookIn(glance)
	case err != nil:
		k.fail(now, digest, err)
	default:
		k.heard()
		k.succeed()
	}
}

// heard looks, after a load, whether anything had told of the change.
func (k *keeper) heard() {
	if !k.announced && k.watch != nil {
		k.unheard = true
		k.blinded(errUnheard)
	}
	k.announced = false
}

func (k *keeper) succeed() {
	k.failing = time.Time{}
	k.m.counts.drift.Store(false)
}

// fail notes a candidate that was not put in service, reports it when candidates have
// failed for a while, and plans to try again after ever longer times: what is not yet
// valid will be. How long is counted from the end of the first failed look to the beginning of this one, so that two torn reads of a
// keeper that was held up between are not taken for a state that lasts.
func (k *keeper) fail(looked time.Time, digest [sha256.Size]byte, err error) {
	if errors.Is(err, ErrClosed) {
		return
	}
	if k.failing.IsZero() {
		k.failing, k.failed = time.Now(), [sha256.Size]byte{}
	}
	if digest != k.failed {
		k.failed, k.attempts, k.reported = digest, 0, false
	}
	if !k.reported && looked.Sub(k.failing) >= patience {
		k.reported = true
		k.m.reject(err)
	}
	if looked.Sub(k.failing) >= driftAfter && !k.m.counts.drift.Swap(true) {
		k.m.events.emit(Event{Kind: Drift, Generation: k.m.current.Load().generation, Err: err})
	}
	k.lookIn(min(settle<<min(k.attempts, 16), k.m.options.PollInterval))
	k.attempts++
}

// tell emits what is due by the calendar and returns the time until something is again. The end of a certificate is due
// then, so that lookups know of it at once.
func (k *keeper) tell() time.Duration {
	current, now := k.m.current.Load(), clock.Now()
	for _, c := range current.certs {
		c.note(now)
	}
	events, next := k.calendar.due(current, now)
	for _, e := range events {
		e.Generation = current.generation
		k.m.events.emit(e)
		if e.Kind == CRLOutOfDate && k.m.options.RequireFreshCRLs {
			k.m.judgeAgain()
		}
	}
	return next
}
