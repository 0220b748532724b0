package meta

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// Handshakes that come densely have the timer run, and nothing is left behind when they cease; one alone costs none.
func TestHandshakesArm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watch hangUpWatch
		for range 3 {
			watch.arm()
			assert.False(t, watch.armed.Load(), "the first in a while")
			time.Sleep(dense / 2)
			watch.arm()
			assert.True(t, watch.armed.Load(), "the next")
			time.Sleep(watchInterval)
			synctest.Wait()
			assert.False(t, watch.armed.Load(), "nobody has come")
			time.Sleep(dense)
		}
	})
}
