package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// tooWide is the spread of raw's own CPU per operation, the middle half of the rounds as a part of
// the median, beyond which a row says nothing.
const tooWide = 0.10

// spread is a median with the quartiles beside it.
type spread struct {
	low, median, high float64
	n                 int
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	at := func(q float64) float64 {
		position := q * float64(len(values)-1)
		below := int(position)
		above := min(below+1, len(values)-1)
		return values[below] + (values[above]-values[below])*(position-float64(below))
	}
	return spread{at(0.25), at(0.5), at(0.75), len(values)}
}

// absolute is a figure of one row over the rounds.
func (r results) absolute(k key, f metric) spread {
	var values []float64
	for _, m := range r[k] {
		if m == nil {
			continue
		}
		if v := f.of(*m); v > 0 && !math.IsInf(v, 0) {
			values = append(values, v)
		}
	}
	return spreadOf(values)
}

// ratio is a figure of one row to that of another in the same round.
func (r results) ratio(k, to key, f metric) spread {
	var values []float64
	for round, m := range r[k] {
		if m == nil || round >= len(r[to]) || r[to][round] == nil {
			continue
		}
		v, w := f.of(*m), f.of(*r[to][round])
		if v > 0 && w > 0 && !math.IsInf(v, 0) && !math.IsInf(w, 0) {
			values = append(values, v/w)
		}
	}
	return spreadOf(values)
}

// met reports whether a bar is reached, no more exactly than the spread allows.
func (b bar) met(s spread) string {
	reached := func(v float64) bool { return v == b.bound || v > b.bound != b.metric.lower }
	switch {
	case s.n == 0:
		return "not measured"
	case reached(s.low) != reached(s.high):
		return map[bool]string{true: "yes?", false: "no?"}[reached(s.median)]
	case reached(s.median):
		return "yes"
	}
	return "NO"
}

func (b bar) String() string {
	sign, of := "≥", ""
	if b.metric.lower {
		sign = "≤"
	}
	if than := cmp.Or(b.than.Row, b.than.Variant); than != "" {
		of = " of " + than
	}
	return fmt.Sprintf("%s %s %.2f%s", b.metric.name, sign, b.bound, of)
}

// report prints the table.
func report(out io.Writer, r results) error {
	keys := make([]key, 0, len(r))
	for k := range r {
		keys = append(keys, k)
	}
	variants := []string{raw, rawDrain, ours, oursPool, oursFramed, ergoMeta, ergoPool}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(slices.Index(rows, a.Row), slices.Index(rows, b.Row)),
			cmp.Compare(slices.Index(variants, a.Variant), slices.Index(variants, b.Variant)))
	})
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "work\tvariant\tCPU efficiency\tthroughput\tp50\tp99\tRSS\tbar\tmet")
	var noisy []string
	for _, k := range keys {
		base := key{k.Row, raw}
		if cpu := r.absolute(k, efficiency); k == base && cpu.n > 0 && (cpu.high-cpu.low)/cpu.median > tooWide {
			noisy = append(noisy, fmt.Sprintf("%s (%.0f %%)", k.Row, 100*(cpu.high-cpu.low)/cpu.median))
		}
		fmt.Fprintf(t, "%s\t%s", k.Row, k.Variant)
		for _, f := range columns {
			own := r.absolute(k, f)
			switch s := r.ratio(k, base, f); {
			case own.n == 0:
				fmt.Fprint(t, "\t")
			case k == base || s.n == 0: // nothing to compare with
				fmt.Fprintf(t, "\t%s", f.show(own.median))
			default:
				fmt.Fprintf(t, "\t%.2f [%.2f %.2f]", s.median, s.low, s.high)
			}
		}
		var wanted, met []string
		for _, b := range bars {
			if b.row != k.Row || b.variant != k.Variant {
				continue
			}
			s := r.ratio(k, key{cmp.Or(b.than.Row, k.Row), cmp.Or(b.than.Variant, raw)}, b.metric)
			wanted = append(wanted, b.String())
			met = append(met, b.met(s))
			if b.than != (key{}) && s.n > 0 {
				met[len(met)-1] += fmt.Sprintf(" (%.2f)", s.median)
			}
		}
		fmt.Fprintf(t, "\t%s\t%s\n", strings.Join(wanted, "; "), strings.Join(met, "; "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nRatios to raw in the same round: median [quartiles]; raw's own line and rows without raw have absolute figures.")
	if len(noisy) > 0 {
		fmt.Fprintf(out, "TOO NOISY TO TELL, raw's own CPU per operation was spread by more than %.0f %%: %s\n",
			100*tooWide, strings.Join(noisy, ", "))
	}
	return nil
}

// show is an absolute figure for people.
func (f metric) show(v float64) string {
	switch f.name {
	case efficiency.name:
		return time.Duration(1/v).String() + "/op"
	case p50.name, p99.name:
		return time.Duration(v).Round(time.Microsecond).String()
	case memory.name:
		return fmt.Sprintf("%.1f KiB", v/1024)
	}
	return fmt.Sprintf("%.0f/s", v)
}
