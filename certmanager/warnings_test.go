package certmanager

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestWarnings(t *testing.T) {
	const day = 24 * time.Hour
	for lifetime, want := range map[time.Duration][]time.Duration{
		3650 * day:       {30 * day, 14 * day, 7 * day, day},
		398 * day:        {30 * day, 14 * day, 7 * day, day},
		90 * day:         {30 * day, 14 * day, 7 * day, day},
		60 * day:         {20 * day, 10 * day, 5 * day, day},
		6 * day:          {2 * day, day, 12 * time.Hour, 6 * time.Hour},
		time.Hour:        {20 * time.Minute, 10 * time.Minute, 5 * time.Minute, 150 * time.Second},
		24 * time.Second: {8 * time.Second, 4 * time.Second, 2 * time.Second, time.Second},
	} {
		end := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
		for i, when := range warnings(end.Add(-lifetime), end) {
			assert.Equal(t, want[i], end.Sub(when), lifetime)
		}
	}
}
