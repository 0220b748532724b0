package certmanager

import (
	"runtime"
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
