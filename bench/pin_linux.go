package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The first and the second of the cores that this process may use.
const (
	serverCore = iota
	loadCore
)

// cores are those that this process may use, or its parent where it is bound to one of them.
func cores() ([]int, error) {
	if list := os.Getenv(coresVariable); list != "" {
		var found []int
		for field := range strings.SplitSeq(list, ",") {
			n, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			found = append(found, n)
		}
		return found, nil
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	var found []int
	for n := range len(set) * strconv.IntSize {
		if set.IsSet(n) && len(found) < 2 {
			found = append(found, n)
		}
	}
	if len(found) == 1 {
		found = append(found, found[0])
	}
	return found, nil
}

// coresVariable hands the parent's cores to the load process, which is bound to one of them.
const coresVariable = "ERGOTLS_BENCH_CORES"

func placement() string {
	found, err := cores()
	switch {
	case err != nil:
		return err.Error()
	case found[0] == found[1]:
		return "only one core: server and load share it, throughput means little"
	}
	return fmt.Sprintf("server on core %d, load on core %d", found[0], found[1])
}

// startOn starts a command bound to a core. The process inherits the affinity of the thread that
// forks it, so that its runtime sees one core from the beginning.
func startOn(core int, cmd *exec.Cmd) error {
	found, err := cores()
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d,%d", coresVariable, found[0], found[1]))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, bound unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	bound.Set(found[core])
	if err := unix.SchedSetaffinity(0, &bound); err != nil {
		return fmt.Errorf("cannot bind to core %d: %w", found[core], err)
	}
	defer unix.SchedSetaffinity(0, &before)
	return cmd.Start()
}

// resident returns the resident bytes of this process, now and at their peak.
func resident() (now, peak float64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/self/status: %w", err)
		}
		if name == "VmRSS" {
			now = kib * 1024
		} else {
			peak = kib * 1024
		}
	}
	return now, peak, nil
}
