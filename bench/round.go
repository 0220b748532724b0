package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// measure is what one cell found out; zero is not measured.
type measure struct {
	CPU  float64 // of the server, nanoseconds per operation
	Rate float64 // operations per second
	P50  float64 // nanoseconds
	P99  float64
	Mem  float64 // resident bytes of the server, or of one connection in it
	GCs  uint32  // garbage collections of the server meanwhile
}

// key names a row of the table.
type key struct{ Row, Variant string }

// results are the measures of each row, one per round; a nil in between is a round that the row was
// not in.
type results map[key][]*measure

// job is what the load process is told.
type job struct {
	Workload, Variant string
	Time              time.Duration
	Crowd, Pairs      int
	Profile           string // file
}

// rounds runs every variant of every workload once per round, in another order each time, so that
// what the machine does meanwhile hits all of them alike.
func rounds(s settings, list []workload, progress io.Writer) (results, error) {
	var plan []workload
	takes := map[key]time.Duration{}
	for _, w := range list {
		w.variants = slices.DeleteFunc(slices.Clone(w.variants), func(variant string) bool {
			return !known(variant) || !s.Run.MatchString(w.name+"/"+variant)
		})
		for _, variant := range w.variants {
			takes[key{w.name, variant}] = s.Time + time.Second // until it is known better
			if w.crowd {
				takes[key{w.name, variant}] += time.Duration(s.Crowd) * time.Millisecond
			}
		}
		if len(w.variants) > 0 {
			plan = append(plan, w)
		}
	}
	if len(plan) == 0 {
		return nil, fmt.Errorf("no workload/variant matches -run %q", s.Run)
	}
	found := results{}
	for round := range s.Rounds {
		rand.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
		var cells []key
		for _, w := range plan {
			// The variants of a workload follow each other, so that they meet the machine in one
			// mood.
			for _, i := range rand.Perm(len(w.variants)) {
				if round < w.atMost(s.Rounds) {
					cells = append(cells, key{w.name, w.variants[i]})
				}
			}
		}
		later := time.Duration(0) // the rounds after this one
		for _, w := range plan {
			for _, variant := range w.variants {
				later += takes[key{w.name, variant}] * time.Duration(max(0, w.atMost(s.Rounds)-round-1))
			}
		}
		for i, c := range cells {
			left := later
			for _, next := range cells[i:] {
				left += takes[next]
			}
			fmt.Fprintf(progress, "round %d of %d, %s left: %s: %s\n",
				round+1, s.Rounds, left.Round(time.Second), c.Row, c.Variant)
			begin := time.Now()
			rows, err := runCell(s, c.Row, c.Variant)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.Row, c.Variant, err)
			}
			takes[c] = time.Since(begin)
			found.add(round, c.Variant, rows)
			tell(progress, rows)
		}
	}
	return found, nil
}

// tell prints what a cell measured.
func tell(progress io.Writer, found map[string]measure) {
	for _, row := range slices.Sorted(maps.Keys(found)) {
		m := found[row]
		fmt.Fprintf(progress, "    %s:", row)
		for _, f := range columns {
			if v := f.of(m); v > 0 && !math.IsInf(v, 0) {
				fmt.Fprintf(progress, " %s %s,", f.name, f.show(v))
			}
		}
		fmt.Fprintf(progress, " GCs %d\n", m.GCs)
	}
}

// add takes what a cell measured in a round.
func (r results) add(round int, variant string, rows map[string]measure) {
	for row, m := range rows {
		k := key{row, variant}
		for len(r[k]) < round {
			r[k] = append(r[k], nil)
		}
		r[k] = append(r[k], &m)
	}
}

// runCell is one cell: it starts the load and reads its result, by row of the table.
func runCell(s settings, workload, variant string) (map[string]measure, error) {
	j := job{Workload: workload, Variant: variant, Time: s.Time, Crowd: s.Crowd, Pairs: s.Pairs}
	if s.Profile != "" {
		name := strings.NewReplacer(" ", "-", ",", "", "+", "-", "%", "").Replace(workload + "." + variant + ".pprof")
		j.Profile = filepath.Join(s.Profile, name)
	}
	input, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd, err := childCommand("load")
	if err != nil {
		return nil, err
	}
	var output bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(input), &output
	core := loadCore
	if find(workload).sameCore {
		core = serverCore
	}
	if err := startOn(core, cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, err
	}
	var rows map[string]measure
	return rows, json.Unmarshal(output.Bytes(), &rows)
}

// childCommand is this program in another role.
func childCommand(role string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	// One core each, also where a process can't be bound to one.
	cmd.Env = append(os.Environ(), roleVariable+"="+role, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	return cmd, nil
}
