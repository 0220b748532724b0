package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// sample is what the process holds at one moment: memory after a collection, in bytes.
type sample struct{ heap, goroutines, descriptors uint64 }

// watch shows the progress and takes samples until ctx ends.
func (w *world) watch(ctx context.Context) (samples []sample) {
	every := max(*lasts/40, 500*time.Millisecond)
	begun := time.Now()
	for tick := time.NewTicker(every); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return samples
		case <-tick.C:
		}
		var m runtime.MemStats
		w.visits.Lock()
		runtime.GC()
		runtime.ReadMemStats(&m)
		w.visits.Unlock()
		now := sample{m.HeapAlloc, uint64(runtime.NumGoroutine()), uint64(len(openDescriptors(w.t)))}
		if ctx.Err() != nil { // who has left already does not count
			continue
		}
		samples = append(samples, now)
		s := meta.Stats(w.server)
		fmt.Printf("%6s of %s: %d echoed, %d open, %d rotations, %d evicted, %d hostile visits, heap %d KiB, %d goroutines, %d descriptors\n",
			time.Since(begun).Round(time.Second), *lasts, w.echoed.Load(), s.Connections, w.rotations.Load(), w.evicted.Load(), w.hostile.Load(),
			now.heap>>10, now.goroutines, now.descriptors)
	}
}

// quarters gives the least of what the samples hold in the second quarter, since the first warms
// up, and in the last.
func quarters(samples []sample) (early, late sample) {
	n := len(samples)
	least := func(some []sample) (l sample) {
		l = some[0]
		for _, s := range some {
			l = sample{min(l.heap, s.heap), min(l.goroutines, s.goroutines), min(l.descriptors, s.descriptors)}
		}
		return l
	}
	return least(samples[n/4 : n/2]), least(samples[3*n/4:])
}

// flat says that nothing has grown, beyond what half of the peers do by coming and going.
func flat(t *testing.T, samples []sample) {
	t.Helper()
	if len(samples) < 8 {
		return
	}
	early, late := quarters(samples)
	assert.Less(t, late.heap, early.heap+early.heap/4+4<<20, "memory grows")
	assert.Less(t, late.goroutines, early.goroutines+early.goroutines/4+100, "goroutines grow")
	assert.Less(t, late.descriptors, early.descriptors+early.descriptors/4+100, "descriptors grow")
}

// summary prints what became of it all.
func (w *world) summary(samples []sample) {
	stats := meta.Stats(w.server)
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "\n%s, %d peers\t\n", *lasts, *peers)
	for _, row := range []struct {
		what  string
		value any
	}{
		{"messages of proven peers echoed, byte by byte", w.echoed.Load()},
		{"connections of proven peers", w.connected.Load()},
		{"rotations of certificate, CA or CRL", w.rotations.Load()},
		{"sets put in service", w.manager.Status().Generation},
		{"sets rejected", w.manager.Status().Rejections},
		{"ACME orders, renewals that visitors saw", fmt.Sprintf("%d, %d", w.acme.Orders(), w.renewed.Load())},
		{"removed peers: evicted, refused when they came back", fmt.Sprintf("%d, %d", w.evicted.Load(), w.refused.Load())},
		{"hostile visits", w.hostile.Load()},
		{"refused, by why", stats.Refused},
		{"ended, by reason", stats.Ended},
	} {
		fmt.Fprintf(out, "%s\t%v\n", row.what, row.value)
	}
	if len(samples) >= 8 {
		early, late := quarters(samples)
		fmt.Fprintf(out, "heap early, late\t%d KiB, %d KiB\n", early.heap>>10, late.heap>>10)
		fmt.Fprintf(out, "goroutines early, late\t%d, %d\n", early.goroutines, late.goroutines)
		fmt.Fprintf(out, "descriptors early, late\t%d, %d\n", early.descriptors, late.descriptors)
	}
	fmt.Fprintf(out, "failures of proven peers, removed peers let in\t%v\n\n", map[bool]string{true: "see above", false: "0, 0"}[w.t.Failed()])
	out.Flush()
}

// openDescriptors says what is open.
func openDescriptors(t *testing.T) (open []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		return nil // not on this system
	}
	require.NoError(t, err)
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name())); err == nil {
			open = append(open, target)
		}
	}
	return open
}
