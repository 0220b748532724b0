package certmanager

import "time"

const (
	// settle is how long a source has to stay unchanged before it is put in service: files are rarely
	// replaced in one step. maxSettle limits the wait.
	settle    = 100 * time.Millisecond
	maxSettle = 2 * time.Second

	// settleLoss and maxSettleLoss apply instead if something is removed: trust, a name, a revocation
	// list. A replacement in two steps lacks something between them.
	settleLoss    = 1500 * time.Millisecond
	maxSettleLoss = 15 * time.Second
)

// debounce decides when a changing source is stable.
type debounce struct {
	since   time.Time // the first change since it was stable; zero: it is stable
	last    time.Time // the last change
	pending time.Time // the first call of changed that no check has followed; zero: none
}

// notice records a call of changed, and returns the time until the source must be checked.
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

// checked records the result of a check. noticed reports whether a call of changed preceded it.
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

// wait returns how much longer the source has to stay unchanged. lacks means that the source lacks
// something that is in service.
func (d *debounce) wait(now time.Time, lacks bool) time.Duration {
	if d.since.IsZero() { // a failed candidate is tried again
		return 0
	}
	rest, most := settle, maxSettle
	if lacks {
		rest, most = settleLoss, maxSettleLoss
	}
	return min(rest-now.Sub(d.last), most-now.Sub(d.since))
}

func (d *debounce) end() { d.since = time.Time{} }
