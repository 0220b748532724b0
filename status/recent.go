package status

import (
	"fmt"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager"
)

// recently is how far back the page says what just happened.
const recently = 10 * time.Minute

// recent counts what a manager did, by minute. The caller holds the page's mu.
type recent struct {
	minutes []events // the oldest first
}

// events are those of one minute.
type events struct {
	start time.Time
	count map[certmanager.Kind]int
}

func (r *recent) add(e certmanager.Event) {
	if e.ReportOnly {
		return
	}
	r.forget(e.Time)
	start := e.Time.Truncate(time.Minute)
	if n := len(r.minutes); n == 0 || r.minutes[n-1].start.Before(start) {
		r.minutes = append(r.minutes, events{start, map[certmanager.Kind]int{}})
	}
	r.minutes[len(r.minutes)-1].count[e.Kind]++
}

func (r *recent) forget(now time.Time) {
	for len(r.minutes) > 0 && now.Sub(r.minutes[0].start) > recently {
		r.minutes = r.minutes[1:]
	}
}

// says returns what just happened in one line, or "" if nothing did. evicted is true if connections
// were closed.
func (r *recent) says(name string, now time.Time) (line string, evicted bool) {
	r.forget(now)
	sum := map[certmanager.Kind]int{}
	for _, m := range r.minutes {
		for kind, n := range m.count {
			sum[kind] += n
		}
	}
	var parts []string
	for _, k := range []struct {
		kind      certmanager.Kind
		one, more string
	}{
		{certmanager.PeerEvicted, "connection was closed because its peer is no longer accepted", "connections were closed because their peers are no longer accepted"},
		{certmanager.PeerRefused, "peer was refused", "peers were refused"},
		{certmanager.Rejected, "set was rejected", "sets were rejected"},
		{certmanager.Loaded, "set was put in service", "sets were put in service"},
	} {
		if n := sum[k.kind]; n > 0 {
			parts = append(parts, plural(n, k.one, k.more))
		}
	}
	if len(parts) == 0 {
		return "", false
	}
	return fmt.Sprintf("%s: %s", name, strings.Join(parts, ", ")), sum[certmanager.PeerEvicted] > 0
}

// bundle is when a set of CAs changed last.
type bundle struct {
	sum   string
	known bool
	since time.Time // zero: not since the page began to watch
}

// note compares the CAs with those of the last look. The caller holds the page's mu.
func (b *bundle) note(all []certmanager.CertificateInfo, when time.Time) {
	var sum strings.Builder
	for _, c := range all {
		sum.WriteString(c.Fingerprint)
	}
	if b.known && b.sum != sum.String() {
		b.since = when
	}
	b.sum, b.known = sum.String(), true
}

// says is a bundle on the page; empty if there is none.
func (b *bundle) says(n int, now time.Time) string {
	switch {
	case n == 0 && b.since.IsZero():
		return ""
	case b.since.IsZero():
		return fmt.Sprintf("%d, not changed since this page was started", n)
	}
	return fmt.Sprintf("%d, changed %s ago", n, span(now.Sub(b.since)))
}
