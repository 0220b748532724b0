package status

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager"
)

// row is a line of the time line.
type row struct {
	Kind, Name, Detail, Serial string
	Begin, End                 time.Time // End is zero for a list without a next update
	Renew                      time.Time // begins the window in which it is to be replaced
	State                      string    // "", "due", "ended" or "not valid yet"
	Says                       string    // when it ends, in words
	Left, Now, Window, Right   float64   // per cent of the line's width: begin, today or end, renewal, end
}

// The line is logarithmic on both sides of today, so that a certificate of a day and a CA of twenty
// years are both seen.
const (
	today = 28.0 // per cent from the left
	unit  = 6 * time.Hour
	far   = 20 * 365 * 24 * time.Hour
)

// place gives the per cent from the left at which a time is drawn.
func place(t, now time.Time) float64 {
	d := t.Sub(now)
	share := math.Log1p(float64(min(d.Abs(), far))/float64(unit)) / math.Log1p(float64(far)/float64(unit))
	if d < 0 {
		return today - share*today
	}
	return today + share*(100-today)
}

// tick is a mark of the scale above the time line.
type tick struct {
	At   float64
	Text string
	Wide bool // only where there is room
}

var ticks = func() (all []tick) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, t := range []tick{{-365, "1 y ago", true}, {1, "1 d", false}, {7, "1 w", false}, {30, "30 d", false}, {365, "1 y", false}, {3650, "10 y", false}} {
		all = append(all, tick{place(now.Add(time.Duration(t.At)*day), now), t.Text, t.Wide})
	}
	return all
}()

// rows are all that ends, by kind, and of each kind the first to end on top.
func rows(s *certmanager.Status, now time.Time) (all []row) {
	next := map[string]time.Time{}
	for _, a := range s.ACME {
		next["ACME "+a.Name] = a.Next
	}
	for _, kind := range []struct {
		name  string
		certs []certmanager.CertificateInfo
	}{{"Certificate", s.Certificates}, {"Intermediate", s.Intermediates}, {"Client CA", s.ClientCAs}, {"Root CA", s.RootCAs}} {
		first := len(all)
		for _, c := range kind.certs {
			r := row{Kind: kind.name, Name: printable(c.Subject), Serial: c.Serial, Begin: c.NotBefore, End: c.NotAfter}
			if len(c.Names) > 0 {
				r.Name, r.Detail = printable(c.Names[0]), printable(strings.Join(c.Names[1:], ", "))
			}
			r.Renew = cmp.Or(next[c.Origin], renewal(c.NotBefore, c.NotAfter))
			all = append(all, r.draw(now))
		}
		byEnd(all[first:])
	}
	first := len(all)
	for _, l := range s.CRLs {
		r := row{
			Kind: "Revocation list", Name: printable(l.Issuer), Detail: plural(l.Revoked, "entry", "entries"), Serial: l.Number,
			Begin: l.ThisUpdate, End: l.NextUpdate, Renew: renewal(l.ThisUpdate, l.NextUpdate),
		}
		all = append(all, r.draw(now))
	}
	byEnd(all[first:])
	return all
}

func byEnd(rows []row) {
	slices.SortStableFunc(rows, func(a, b row) int { return a.End.Compare(b.End) })
}

// renewal is when a certificate should be replaced: when the manager begins to warn of its end.
func renewal(begin, end time.Time) time.Time {
	return end.Add(-min(30*24*time.Hour, end.Sub(begin)/3))
}

// draw fills in what follows from the dates.
func (r row) draw(now time.Time) row {
	r.Left = place(r.Begin, now)
	if r.End.IsZero() {
		r.Renew, r.Window, r.Right, r.Now, r.Says = time.Time{}, 100, 100, today, "names no end"
		return r
	}
	r.Right = place(r.End, now)
	r.Window = min(max(place(r.Renew, now), r.Left), r.Right)
	r.Now = min(max(today, r.Left), r.Right)
	switch {
	case now.After(r.End):
		r.State, r.Says = "ended", "ended "+span(now.Sub(r.End))+" ago"
	case now.Before(r.Begin):
		r.State, r.Says = "not valid yet", "begins in "+span(r.Begin.Sub(now))
	case r.Kind != "Revocation list" && late(r, now):
		r.State, r.Says = "due", "ends in "+span(r.End.Sub(now))
	case r.End.Year() == 9999: // RFC 5280 section 4.1.2.5
		r.Says = "does not end"
	default:
		r.Says = "ends in " + span(r.End.Sub(now))
	}
	return r
}

// late reports whether an operator should look. A CA is replaced by people. A certificate is
// renewed automatically, so it is late only after half of its renewal window.
func late(r row, now time.Time) bool {
	if r.Kind == "Certificate" {
		return now.After(r.Renew.Add(r.End.Sub(r.Renew) / 2))
	}
	return now.After(r.Renew)
}

// Label is the row's line for those who do not see it.
func (r row) Label() string {
	if r.End.IsZero() {
		return fmt.Sprintf("from %s on, without expiry", date(r.Begin))
	}
	return fmt.Sprintf("from %s to %s; to be replaced from %s on", date(r.Begin), date(r.End), date(r.Renew))
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02") }

// span is a duration in the words of people.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	case d < 60*day:
		return fmt.Sprintf("%d days", int(d/day))
	case d < 2*365*day:
		return fmt.Sprintf("%d months", int(d/(30*day)))
	}
	return fmt.Sprintf("%d years", int(d/(365*day)))
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// graph is a small picture of the last hour, a column for each minute.
type graph struct {
	Title, Unit string
	Columns     []column
	Now, Most   uint64 // of the last minute, and of any
}

// column has the measures of a bar in a picture of 60 by 20.
type column struct{ X, Y, Height float64 }

// Label is the graph for those who do not see it.
func (g graph) Label() string {
	return fmt.Sprintf("%s, last hour: %d %s, at most %d", g.Title, g.Now, g.Unit, g.Most)
}

func graphs(minutes []minute, now time.Time) []graph {
	end := now.Truncate(time.Minute)
	draw := func(title, unit string, value func(m minute) uint64) graph {
		g := graph{Title: title, Unit: unit}
		for _, m := range minutes {
			g.Most = max(g.Most, value(m))
		}
		for _, m := range minutes {
			if v := value(m); v > 0 {
				height := max(1, 20*float64(v)/float64(g.Most))
				g.Columns = append(g.Columns, column{hour - 1 - end.Sub(m.Start).Minutes(), 20 - height, height})
			}
		}
		if n := len(minutes); n > 0 && minutes[n-1].Start.Equal(end) {
			g.Now = value(minutes[n-1])
		}
		return g
	}
	return []graph{
		draw("Connections", "now", func(m minute) uint64 { return uint64(m.Connections) }),
		draw("Handshakes", "this minute", func(m minute) uint64 { return m.Handshakes }),
		draw("Refusals", "this minute", func(m minute) uint64 { return m.Refused }),
	}
}
