package acme

import (
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const day = 24 * time.Hour

func TestRenewalTime(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		lifetime, before time.Duration
		earliest, latest time.Duration // before the end
		clamped          bool
	}{
		{90 * day, 0, 33 * day, 30 * day, false},
		{6 * day, 0, 52*time.Hour + 48*time.Minute, 48 * time.Hour, false},
		{time.Hour, 0, 22 * time.Minute, 20 * time.Minute, false},
		{30 * time.Second, 0, 11 * time.Second, 10 * time.Second, false},
		{90 * day, 20 * day, 22 * day, 20 * day, false},
		{90 * day, 45 * day, 49*day + 12*time.Hour, 45 * day, false},
		{45 * day, 30 * day, 24*day + 18*time.Hour, 22*day + 12*time.Hour, true},
		{time.Hour, 30 * day, 33 * time.Minute, 30 * time.Minute, true},
	} {
		name := fmt.Sprintf("%v before %v", c.lifetime, c.before)
		end := begin.Add(c.lifetime)
		window, clamped := renewalWindow(c.lifetime, c.before)
		assert.Equal(t, c.clamped, clamped, name)
		assert.Equal(t, c.latest, end.Sub(renewalTime(end, window, 0)), name)
		assert.InDelta(t, c.earliest, end.Sub(renewalTime(end, window, 1)), 1, name)
		assert.True(t, renewalTime(end, window, 1).After(begin.Add(c.lifetime/3)), "no order after the other")
	}
}

func TestSuggestedTime(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	leaf := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(90 * day)}
	for what, c := range map[string]struct {
		start, end time.Duration // after begin
		chance     float64
		want       time.Duration
	}{
		"the beginning of the window":   {50 * day, 52 * day, 0, 50 * day},
		"its middle":                    {50 * day, 52 * day, 0.5, 51 * day},
		"later than ours":               {65 * day, 67 * day, 0.5, 66 * day},
		"too late for retries":          {80 * day, 90 * day, 0.5, 75 * day},
		"after the end":                 {200 * day, 201 * day, 0, 75 * day},
		"now":                           {10 * day, 10*day + time.Second, 0, 10 * day},
		"long ago: not again and again": {-day, -day + time.Second, 0, 4 * time.Hour},
	} {
		got := suggestedTime(begin.Add(c.start), begin.Add(c.end), leaf, 30*day, c.chance)
		assert.Equal(t, c.want, got.Sub(begin), what)
	}
}

func TestRetryDelay(t *testing.T) {
	for what, c := range map[string]struct {
		failures              int
		invalid               bool
		remaining, retryAfter time.Duration
		want                  time.Duration
	}{
		"the first":                 {1, false, 0, 0, time.Second},
		"the third":                 {3, false, 0, 0, 9 * time.Second},
		"a validation":              {1, true, 0, 0, 30 * time.Second},
		"its third":                 {3, true, 0, 0, 270 * time.Second},
		"many":                      {1000, false, 0, 0, time.Hour},
		"many validations":          {1000, true, 0, 0, 6 * time.Hour},
		"little is left":            {1000, true, time.Hour, 0, 6 * time.Minute},
		"much is left":              {1000, true, 30 * day, 0, 6 * time.Hour},
		"much, with the CA down":    {1000, false, 30 * day, 0, 6 * time.Hour},
		"next to nothing is left":   {5, true, time.Millisecond, 0, 100 * time.Millisecond},
		"the CA asks for more":      {1, false, 0, time.Minute, time.Minute},
		"also where little is left": {1, false, time.Minute, time.Hour, time.Hour},
		"the CA asks for less":      {3, true, 0, time.Second, 270 * time.Second},
		"the CA asks for the moon":  {1, false, 0, 1000 * day, day},
	} {
		assert.Equal(t, c.want, retryDelay(c.failures, c.invalid, c.remaining, c.retryAfter, 0), what)
		most := retryDelay(c.failures, c.invalid, c.remaining, c.retryAfter, 1)
		assert.LessOrEqual(t, most, max(c.want+c.want/5, c.retryAfter), what)
	}
}

// A name whose validation fails meets no CA's limit of five failures in an hour, with and without a
// certificate in service.
func TestFailedValidationsPerHour(t *testing.T) {
	for _, remaining := range []time.Duration{0, 30 * day} {
		var attempts []time.Duration
		at := time.Duration(0)
		for failures := 1; at < 10*day; failures++ {
			attempts = append(attempts, at)
			at += retryDelay(failures, true, remaining, 0, 0)
		}
		for i := range len(attempts) - 5 {
			assert.Greater(t, attempts[i+5]-attempts[i], time.Hour, "attempts %d to %d", i, i+5)
		}
	}
}

// Whatever the lifetime: a CA that is down for nine tenths of the renewal window is found back
// before the certificate ends, with a tolerable number of attempts.
func TestRetriesAreInTime(t *testing.T) {
	for _, lifetime := range []time.Duration{20 * time.Second, time.Hour, 6 * day, 90 * day} {
		for _, invalid := range []bool{false, true} {
			window, _ := renewalWindow(lifetime, 0)
			now, attempts := time.Duration(0), 0 // since the window began
			for now < window*9/10 {
				attempts++
				now += retryDelay(attempts, invalid, window-now, 0, 1)
			}
			assert.Less(t, now, window-window/100, "%v", lifetime)
			assert.Less(t, attempts, 200, "%v", lifetime)
		}
	}
}
