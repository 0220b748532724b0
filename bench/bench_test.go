package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/internal/needs"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" { // a cell starts this binary
		child(role)
		return
	}
	// With the race detector every process sleeps for a second at its end, and these tests start a
	// hundred of them.
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	goleak.VerifyTestMain(m)
}

func tiny(run string) settings {
	return settings{Rounds: 1, Time: 20 * time.Millisecond, Crowd: 20, Pairs: 3, Run: regexp.MustCompile(run)}
}

// TestTable runs every workload on every variant, for a moment each.
func TestTable(t *testing.T) {
	needs.Long(t)
	var out, progress bytes.Buffer
	require.NoError(t, bench(tiny(""), &out, &progress), "%s", &progress)
	table := out.String()
	for _, row := range rows {
		if runtime.GOOS != "linux" && (row == idleAfter || row == idleBefore || row == credit) {
			continue // memory is all that they have
		}
		assert.Regexp(t, "(?m)^"+regexp.QuoteMeta(row)+"  ", table)
	}
	for _, b := range bars {
		assert.Contains(t, table, b.String())
		assert.Contains(t, rows, b.row)
	}
	if runtime.GOOS == "linux" {
		assert.NotContains(t, table, "not measured")
	}
	assert.Contains(t, progress.String(), "round 1 of 1, ")
}

func TestCurve(t *testing.T) {
	s := tiny("")
	s.Crowd = 100
	s.Curve = filepath.Join(t.TempDir(), "curve.svg")
	var out bytes.Buffer
	require.NoError(t, bench(s, &out, io.Discard))
	assert.Contains(t, out.String(), "100 connections")
	assert.Contains(t, out.String(), "A million idle connections")
	picture, err := os.ReadFile(s.Curve)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(picture, new(struct{})))
	assert.Equal(t, 4, strings.Count(string(picture), "<polyline"), "two variants in two panels")
	assert.NotContains(t, string(picture), "NaN")
}

// TestActors has a hundred active clients and thirty idle ones of another process.
func TestActors(t *testing.T) {
	s := tiny("")
	s.Actors = activeClients + 30
	var out bytes.Buffer
	require.NoError(t, bench(s, &out, io.Discard))
	assert.Regexp(t, "(?m)^ours, actors +130 ", out.String())
	s.Actors = math.MaxInt32
	require.ErrorContains(t, bench(s, &out, io.Discard), "ulimit -Hn")
}

func TestProfile(t *testing.T) {
	s := tiny("^rr 64/ours$")
	s.Profile = filepath.Join(t.TempDir(), "profiles")
	require.NoError(t, bench(s, io.Discard, io.Discard))
	info, err := os.Stat(filepath.Join(s.Profile, "rr-64.ours.pprof"))
	require.NoError(t, err)
	assert.NotZero(t, info.Size())
}

func TestNothingMatches(t *testing.T) {
	require.ErrorContains(t, bench(tiny("^no such workload$"), io.Discard, io.Discard), "-run")
}

func TestSpread(t *testing.T) {
	assert.Equal(t, spread{2, 3, 4, 5}, spreadOf([]float64{5, 1, 4, 2, 3}))
	assert.Equal(t, spread{7, 7, 7, 1}, spreadOf([]float64{7}))
	assert.Equal(t, spread{}, spreadOf(nil))
}

// TestRatio: only rounds in which both were measured count, and more is better for CPU.
func TestRatio(t *testing.T) {
	base, mine := key{rr64, raw}, key{rr64, ours}
	r := results{}
	r.add(0, raw, map[string]measure{rr64: {CPU: 10, Rate: 100, P99: 5}})
	r.add(1, raw, map[string]measure{rr64: {CPU: 30, Rate: 100, P99: 5}})
	r.add(1, ours, map[string]measure{rr64: {CPU: 15, Rate: 50, P99: 10}})
	assert.Equal(t, spread{2, 2, 2, 1}, r.ratio(mine, base, efficiency))
	assert.Equal(t, spread{0.5, 0.5, 0.5, 1}, r.ratio(mine, base, throughput))
	assert.Equal(t, spread{2, 2, 2, 1}, r.ratio(mine, base, p99))
	assert.Zero(t, r.ratio(mine, base, memory).n)
}

func TestMet(t *testing.T) {
	atLeast, atMost := bar{metric: efficiency, bound: 1}, bar{metric: p99, bound: 1}
	for _, c := range []struct {
		spread      spread
		least, most string
	}{
		{spread{1.1, 1.2, 1.3, 9}, "yes", "NO"},
		{spread{0.7, 0.8, 0.9, 9}, "NO", "yes"},
		{spread{0.9, 1.1, 1.2, 9}, "yes?", "no?"},
		{spread{0.8, 0.9, 1.1, 9}, "no?", "yes?"},
		{spread{1, 1, 1, 9}, "yes", "yes"},
		{spread{}, "not measured", "not measured"},
	} {
		assert.Equal(t, c.least, atLeast.met(c.spread), "%v", c.spread)
		assert.Equal(t, c.most, atMost.met(c.spread), "%v", c.spread)
	}
}

func TestNoise(t *testing.T) {
	quiet, loud := results{}, results{}
	for round, cpu := range []float64{10, 10.1, 9.9, 10, 10.2} {
		quiet.add(round, raw, map[string]measure{rr64: {CPU: cpu}})
		loud.add(round, raw, map[string]measure{rr64: {CPU: cpu * float64(1+round)}})
	}
	var out bytes.Buffer
	require.NoError(t, report(&out, quiet))
	assert.NotContains(t, out.String(), "TOO NOISY")
	require.NoError(t, report(&out, loud))
	assert.Contains(t, out.String(), "TOO NOISY TO TELL")
}
