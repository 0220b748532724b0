package certmanager

import (
	"errors"
	"sync/atomic"
	"time"
)

// counts are of the whole life of a Manager.
type counts struct {
	loads, rejections, refused, reported, evicted, declinedTickets atomic.Uint64
	refusedBy                                                      [len(refusedSentinels)]atomic.Uint64

	drift      atomic.Bool
	polling    atomic.Pointer[error]   // why the source does not notice changes, though it should
	polled     atomic.Bool             // a source that does not notice changes is one of those in use
	warnings   atomic.Pointer[[]error] // of the source
	clockSteps atomic.Uint64
	lastError  atomic.Pointer[lastError]
}

// RefusedReasons are the keys of Status.RefusedBy. An error that wraps several of these sentinels
// counts for the first.
var RefusedReasons = []string{
	ErrExpired.Error(), ErrNotYetValid.Error(), ErrRevoked.Error(), ErrCRLOutOfDate.Error(), ErrNotAuthorized.Error(), ErrUntrusted.Error(),
}

var refusedSentinels = [...]error{ErrExpired, ErrNotYetValid, ErrRevoked, ErrCRLOutOfDate, ErrNotAuthorized, ErrUntrusted}

// refuse counts a peer that is refused.
func (c *counts) refuse(err error) {
	c.refused.Add(1)
	for i, sentinel := range refusedSentinels {
		if errors.Is(err, sentinel) {
			c.refusedBy[i].Add(1)
			return
		}
	}
}

func (c *counts) refusedReasons() map[string]uint64 {
	by := make(map[string]uint64)
	for i, reason := range RefusedReasons {
		if n := c.refusedBy[i].Load(); n > 0 {
			by[reason] = n
		}
	}
	return by
}

type lastError struct {
	when time.Time
	text string
}
