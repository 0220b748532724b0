package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
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
}

// key names a row of the table.
type key struct{ Row, Variant string }

// results are the measures of each row, one per round; a nil in between is a round that the row was not in.
type results map[key][]*measure

// job is what the load process is told.
type job struct {
	Workload, Variant string
	Time              time.Duration
	Crowd, Pairs      int
	Profile           string // file
}

// rounds runs every variant of every workload once per round, in an order of its own each time, so that what the
// machine does meanwhile hits all of them alike.
func rounds(s settings, all []workload, progress io.Writer) (results, error) {
	type cell struct {
		work    workload
		variant string
		takes   time.Duration
	}
	var cells []*cell
	for _, w := range all {
		for _, v := range w.variants {
			if known(v) && s.Run.MatchString(w.name+"/"+v) {
				cells = append(cells, &cell{w, v, s.Time + time.Second})
			}
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("no workload/variant matches -run %q", s.Run)
	}
	found := results{}
	for round := range s.Rounds {
		rand.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
		for i, c := range cells {
			if c.work.rounds > 0 && round >= c.work.rounds {
				continue
			}
			left := time.Duration(0)
			for n, other := range cells {
				times := s.Rounds
				if other.work.rounds > 0 {
					times = min(times, other.work.rounds)
				}
				if times -= round; n < i {
					times--
				}
				left += other.takes * time.Duration(max(0, times))
			}
			fmt.Fprintf(progress, "round %d of %d, %s left: %s, %s\n",
				round+1, s.Rounds, left.Round(time.Second), c.work.name, c.variant)
			start := time.Now()
			rows, err := runCell(s, c.work, c.variant)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", c.work.name, c.variant, err)
			}
			c.takes = time.Since(start)
			for row, m := range rows {
				k := key{row, c.variant}
				for len(found[k]) < round {
					found[k] = append(found[k], nil)
				}
				found[k] = append(found[k], &m)
			}
		}
	}
	return found, nil
}

// runCell is one cell: it starts the load and reads its result, by row of the table.
func runCell(s settings, w workload, variant string) (map[string]measure, error) {
	j := job{Workload: w.name, Variant: variant, Time: s.Time, Crowd: s.Crowd, Pairs: s.Pairs}
	if s.Profile != "" {
		name := strings.NewReplacer(" ", "-", ",", "", "+", "-", "%", "").Replace(w.name + "." + variant + ".pprof")
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
	if w.sameCore {
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
