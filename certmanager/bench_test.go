package certmanager

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// BenchmarkLookup is what a handshake pays for its certificate where each name has one.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 1_000, 100_000} {
		b.Run(fmt.Sprintf("names=%d", n), func(b *testing.B) { benchmarkLookup(b, n, manyNames(n)) })
	}
}

func benchmarkLookup(b *testing.B, n int, all *names) {
	m := &Manager{}
	m.current.Store(&snapshot{names: all, in: inputs{material: &material{}}})
	get := m.GetCertificateFunc()
	for _, kind := range []string{"exact", "wildcard", "mixed case", "unknown", "none"} {
		hello := lookups()[kind]
		b.Run(strings.ReplaceAll(kind, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := get(hello); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	// Any of the names, so that neither map nor certificate is in the processor's cache; what is
	// found is read, as a handshake does next.
	names := make([]string, 1<<16)
	for i := range names {
		names[i] = fmt.Sprintf("host%d.example.test", rand.IntN(n))
	}
	b.Run("any", func(b *testing.B) {
		b.ReportAllocs()
		hello := *lookups()["exact"]
		for i := 0; b.Loop(); i++ {
			hello.ServerName = names[i%len(names)]
			if c, err := get(&hello); err != nil || c.Leaf == nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			hello := *lookups()["exact"]
			for i := rand.IntN(len(names)); pb.Next(); i++ {
				hello.ServerName = names[i%len(names)]
				if _, err := get(&hello); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
