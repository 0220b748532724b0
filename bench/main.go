// The command bench measures TLS echo servers side by side: plain crypto/tls, this project's meta
// processes and, with the build tag upstream, Ergo's own. README.md says how to read what it
// prints.
//
// A cell, which is one workload on one variant in one round, is two processes of this binary: the
// load on one core starts the server on another, speaks to it over its standard input and output,
// and prints one line with the result.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"time"
)

// roleVariable tells a child what it is.
const roleVariable = "ERGOTLS_BENCH_ROLE"

// settings are the command line.
type settings struct {
	Rounds  int
	Time    time.Duration // of one measurement
	Crowd   int           // connections where many are meant
	Pairs   int           // certificate pairs of the reload
	Run     *regexp.Regexp
	Profile string // directory, empty: none
	Curve   string // SVG file, empty: the table
	Actors  int    // connections with an actor each; 0: the table
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		child(role)
		return
	}
	s, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2) // flag has said why
	}
	if err := bench(s, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (settings, error) {
	s := settings{Pairs: 1000}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.Rounds, "rounds", 9, "`number` of interleaved rounds")
	flags.DurationVar(&s.Time, "time", 2*time.Second, "`duration` of one measurement")
	flags.IntVar(&s.Crowd, "crowd", 10_000, "`connections` of the workloads with many; no other has more")
	flags.StringVar(&s.Profile, "cpuprofile", "", "`directory` for a CPU profile of the server per workload and variant, of the last round")
	flags.StringVar(&s.Curve, "curve", "", "measure the cost curve instead and draw it into this SVG `file`")
	flags.IntVar(&s.Actors, "actors", 0, "measure a server with this number of `connections` instead, each with its actor")
	run := flags.String("run", "", "only the workloads and variants, written workload/variant, that match the `regexp`")
	short := flags.Bool("short", false, "3 rounds of 0.3 s and a crowd of 1,000: done in two minutes, and too rough to judge by")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if *short {
		s.Rounds, s.Time, s.Crowd, s.Pairs = 3, 300*time.Millisecond, 1000, 100
	}
	var err error
	if s.Run, err = regexp.Compile(*run); err != nil {
		fmt.Fprintln(os.Stderr, "-run:", err)
	}
	return s, err
}

func bench(s settings, out, progress io.Writer) error {
	if s.Profile != "" {
		if err := os.MkdirAll(s.Profile, 0o755); err != nil {
			return err
		}
	}
	if limit := openFiles(); s.Actors == 0 && uint64(s.Crowd)+100 > limit {
		return fmt.Errorf("a crowd of %d connections needs more open files than the %d of this process: raise ulimit -n, or lower -crowd", s.Crowd, limit)
	}
	fmt.Fprintln(progress, placement())
	if s.Actors > 0 {
		return actors(s, out)
	}
	if s.Curve != "" {
		return curve(s, out, progress)
	}
	table := slices.DeleteFunc(all(), func(w workload) bool { return w.name == "curve" })
	results, err := rounds(s, table, progress)
	if err != nil {
		return err
	}
	return report(out, results)
}

// child is what a process of a cell does. Its first line of input is its job.
func child(role string) {
	var err error
	switch role {
	case "load":
		var j job
		input := json.NewDecoder(os.Stdin)
		if err = input.Decode(&j); err == nil {
			err = load(j, os.Stdout)
		}
	case "crowd":
		err = holdCrowd(os.Stdin, os.Stdout)
	case "server":
		err = serve(os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("unknown role %q in %s", role, roleVariable)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", role, err)
		os.Exit(1)
	}
}
