package meta

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// A crew does all jobs at once, keeps few goroutines for the next ones, none that is not needed for long, and none when it is dismissed.
func TestCrew(t *testing.T) {
	synctest.Test(t, testCrew) // which fails where a goroutine is left
}

func testCrew(t *testing.T) {
	var c crew
	const jobs = 2 * maxResting
	var together, callers sync.WaitGroup
	together.Add(jobs)
	for range jobs {
		callers.Go(func() {
			c.do(func() {
				together.Done()
				together.Wait()
			})
		})
	}
	callers.Wait()
	assert.Len(t, c.resting, maxResting)
	before := c.resting[maxResting-1]
	c.do(func() {})
	assert.Len(t, c.resting, maxResting)
	assert.Same(t, before, c.resting[maxResting-1], "the warmest is taken again")

	assert.PanicsWithValue(t, "", func() {
		defer func() {
			v := recover()
			assert.Contains(t, v, "boom in a handshake")
			assert.Contains(t, v, "crew_test.go", "where it was")
			panic("")
		}()
		c.do(func() { panic("boom") })
	})
	assert.Panics(t, func() { c.do(runtime.Goexit) }, "or nobody would ever return")
	assert.Len(t, c.resting, maxResting-2)

	rest := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.resting)
	}
	for range 3 * restTime / (restTime / 4) { // one is needed
		c.do(func() {})
		time.Sleep(restTime / 4)
	}
	assert.Equal(t, 1, rest())
	time.Sleep(2*restTime + 1)
	assert.Zero(t, rest())

	c.do(func() {})
	c.do(c.dismiss)
	c.do(func() {})
	assert.Zero(t, rest())
}
