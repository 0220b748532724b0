package certmanager

import "time"

const (
	// settle is how long a source has to stay the same before it is put in service: files
	// are rarely replaced in one step. maxSettle ends the wait for one that never does.
	settle    = 100 * time.Millisecond
	maxSettle = 2 * time.Second

	// settleLoss and maxSettleLoss are the same where something is taken away: trust, a
	// name, a revocation list. What is written in two steps lacks something in between.
	settleLoss    = 1500 * time.Millisecond
	maxSettleLoss = 15 * time.Second
)

// debounce says when a source that changes has come to rest.
type debounce struct {
	since   time.Time // the first change since it was at rest; zero: it is at rest
	last    time.Time // the last change
	pending time.Time // the first call of changed that no check has followed; zero: none
}

// notice notes a call of changed, and returns the time until the source is to be checked.
func (d *debounce) notice(now time.Time) time.Duration {
	d.last = now
	if d.pending.IsZero() {
		d.pending = now
	}
	if d.since.IsZero() {
		d.since = now
	}
	return min(settle, max(0, maxSettle-now.Sub(d.pending)))
}

// checked notes what a check has found. noticed says whether a call of changed came before it.
func (d *debounce) checked(now time.Time, changed bool) (noticed bool) {
	noticed = !d.pending.IsZero()
	d.pending = time.Time{}
	if changed && !noticed {
		d.last = now
	}
	if changed && d.since.IsZero() {
		d.since = now
	}
	return noticed
}

// wait returns how much longer the source has to stay as it is; lacks says that what it has lacks
// something of what is in service.
func (d *debounce) wait(now time.Time, lacks bool) time.Duration {
	if d.since.IsZero() { // a candidate that failed is tried again
		return 0
	}
	rest, most := settle, maxSettle
	if lacks {
		rest, most = settleLoss, maxSettleLoss
	}
	return min(rest-now.Sub(d.last), most-now.Sub(d.since))
}

func (d *debounce) end() { d.since = time.Time{} }
