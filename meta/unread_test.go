//go:build !race

package meta_test

import (
	"bufio"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/meta"
)

// What a peer costs that sends all it can and reads nothing is bounded, whatever messages are made
// of it.
func TestPeerThatNeverReads(t *testing.T) {
	const allowed = 8 << 20 // bytes of heap, the test's own and garbage included
	for name, options := range map[string]meta.TCPServerOptions{
		"bytes":          {},
		"small messages": {BufferSize: 2},
		"lines":          {Split: bufio.ScanLines},
		"Active":         {Active: 1},
		"much credit":    {Split: bufio.ScanLines, Active: 1 << 20},
		"BufferPool":     {BufferPool: &sync.Pool{New: func() any { return make([]byte, 64<<10) }}},
	} {
		for i, m := range modes() {
			if name != "lines" && i%2 == 1 {
				continue // it takes long
			}
			t.Run(name+"/"+m.name, func(t *testing.T) {
				options := options
				options.CertManager = m.manager
				a := newHost(t).spawn(func(o *owner, message any) bool {
					switch m := message.(type) {
					case meta.MessageTCP:
						o.SendAlias(m.ID, m)
					case meta.MessageTCPPassive:
						o.SendAlias(m.ID, meta.MessageTCPActive{N: max(1, options.Active/1000)})
					default:
						return false
					}
					return true
				})
				_, addr := a.listen(options)
				peer := m.dial(t, addr)
				expect[meta.MessageTCPConnect](a)
				before := heap()
				done := make(chan struct{})
				go func() {
					defer close(done)
					for chunk := []byte(strings.Repeat("x\n", 8<<10)); ; {
						if _, err := peer.Write(chunk); err != nil {
							return
						}
					}
				}()
				var last uint64
				still := 0
				eventually(t, func() bool {
					in := meta.Stats(a.server).BytesIn
					if still++; in != last {
						last, still = in, 0
					}
					return in > 0 && still == 100
				}, "it is held back")
				used := int(heap() - before)
				t.Logf("%d bytes read, %d KiB held", last, used>>10)
				assert.Less(t, used, allowed)
				peer.Close()
				rawTCP(peer).Close()
				<-done
			})
		}
	}
}

func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
