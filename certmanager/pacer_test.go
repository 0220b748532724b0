package certmanager

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestPacer(t *testing.T) {
	took := func(processors int, on bool, steps int) (all time.Duration) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
		synctest.Test(t, func(*testing.T) {
			pace, began := pacer{on: on}, time.Now()
			for range steps {
				pace.step()
				time.Sleep(paceWork/2 + 1) // the work
			}
			all = time.Since(began) - time.Duration(steps)*(paceWork/2+1)
		})
		return all
	}
	assert.Equal(t, 5*pacePause, took(1, true, 10), "after each second step")
	assert.Equal(t, paceMax, took(1, true, 10_000))
	assert.Zero(t, took(1, false, 10), "nothing is in service")
	assert.Zero(t, took(2, true, 10))
}

// Where other goroutines keep the processor busy, a pause takes until the scheduler interrupts
// them. All pauses together still take no longer than they may.
func TestPacerOnABusyProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var end atomic.Bool
	defer end.Store(true)
	go func() {
		for !end.Load() {
		}
	}()
	var paused time.Duration
	pace := pacer{on: true}
	for working := 0; working < 100 && paused < 2*paceMax; working++ {
		for began := time.Now(); time.Since(began) <= paceWork; { // the work
		}
		began, slept := time.Now(), pace.slept
		if pace.step(); pace.slept > slept {
			paused, working = paused+time.Since(began), 0
		}
	}
	assert.InDelta(t, paceMax.Seconds(), paused.Seconds(), paceMax.Seconds()/2)
}
