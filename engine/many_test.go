package ergo_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"ergo.services/ergo/gen"
)

// BenchmarkNode starts a node with many processes, each with a meta process, and stops it. What one
// of them takes of time and memory does not depend on how many there are.
func BenchmarkNode(b *testing.B) {
	for _, count := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			var before, after runtime.MemStats
			for b.Loop() {
				node := startNode(b)
				runtime.GC()
				runtime.ReadMemStats(&before)
				for range count {
					s, _ := spawn(b, node, &sink{})
					_, err := s.SpawnMeta(newMetaSink(), gen.MetaOptions{})
					require.NoError(b, err)
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				node.Stop()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/process")
			b.ReportMetric(float64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse)/float64(count), "B/process")
		})
	}
}
