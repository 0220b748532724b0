package status

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"

	"github.com/ergotls/ergotls/internal/needs"
)

const day = 24 * time.Hour

// The place of a time grows with it, from edge to edge, with today where the mark is.
func TestPlace(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	assert.Equal(t, today, place(now, now))
	assert.Zero(t, place(now.AddDate(-300, 0, 0), now))
	assert.Equal(t, 100.0, place(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), now))
	last := -1.0
	for _, d := range []time.Duration{-20 * 365 * day, -365 * day, -day, -time.Minute, 0, time.Minute, day, 7 * day, 90 * day, 365 * day, 10 * 365 * day} {
		at := place(now.Add(d), now)
		assert.Greater(t, at, last, d)
		last = at
	}
}

// Every state of a certificate, a CA and a list is said and drawn within the line.
func TestRows(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name        string
		begin, end  time.Duration
		state, says string
		authority   bool
		list        bool
		acmeNext    time.Duration
	}{
		{name: "fresh", begin: -day, end: 89 * day, says: "ends in 2 months"},
		{name: "renewing", begin: -65 * day, end: 25 * day, says: "ends in 25 days"},
		{name: "late", begin: -80 * day, end: 10 * day, state: "due", says: "ends in 10 days"},
		{name: "short", begin: -21 * time.Hour, end: 3 * time.Hour, state: "due", says: "ends in 3 h"},
		{name: "by its CA", begin: -80 * day, end: 10 * day, acmeNext: 9 * day, says: "ends in 10 days"},
		{name: "over", begin: -90 * day, end: -time.Minute, state: "ended", says: "ended 1 min ago"},
		{name: "tomorrow", begin: 30 * time.Second, end: day, state: "not valid yet", says: "begins in 30 s"},
		{name: "old CA", begin: -3650 * day, end: 29 * day, authority: true, state: "due", says: "ends in 29 days"},
		{name: "CA", begin: -day, end: 3650 * day, authority: true, says: "ends in 10 years"},
		{name: "list", begin: -23 * time.Hour, end: time.Hour, list: true, says: "ends in 1 h"},
		{name: "old list", begin: -2 * day, end: -day, list: true, state: "ended", says: "ended 24 h ago"},
		{name: "endless list", begin: -2 * day, list: true, says: "names no end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &certmanager.Status{}
			info := certmanager.CertificateInfo{Subject: "CN=x", NotBefore: now.Add(c.begin), NotAfter: now.Add(c.end), Origin: "ACME x"}
			switch {
			case c.authority:
				s.ClientCAs = append(s.ClientCAs, info)
			case c.list:
				list := certmanager.CRLInfo{Issuer: "CN=x", ThisUpdate: now.Add(c.begin)}
				if c.end != 0 {
					list.NextUpdate = now.Add(c.end)
				}
				s.CRLs = append(s.CRLs, list)
			default:
				s.Certificates = append(s.Certificates, info)
			}
			if c.acmeNext != 0 {
				s.ACME = []certmanager.OrderStatus{{Name: "x", Next: now.Add(c.acmeNext)}}
			}
			r := rows(s, now)[0]
			assert.Equal(t, c.state, r.State)
			assert.Equal(t, c.says, r.Says)
			assert.NotEmpty(t, r.Label())
			measures := []float64{0, r.Left, r.Now, r.Window, r.Right, 100}
			if now.After(r.Renew) && !r.End.IsZero() {
				measures = []float64{0, r.Left, r.Window, r.Right, 100}
			}
			for i, m := range measures[1:] {
				assert.LessOrEqual(t, measures[i], m, measures)
				assert.False(t, math.IsNaN(m))
			}
		})
	}
}

// A Duration holds 292 years, and certificates more.
func TestRowsOfAllTime(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	always, never := time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for says, info := range map[string]certmanager.CertificateInfo{
		"does not end":        {NotBefore: always, NotAfter: never},
		"ended 292 years ago": {NotBefore: always, NotAfter: always.Add(time.Hour)},
		"begins in 292 years": {NotBefore: never.Add(-time.Hour), NotAfter: never},
	} {
		r := rows(&certmanager.Status{Certificates: []certmanager.CertificateInfo{info}}, now)[0]
		assert.Equal(t, says, r.Says)
		for _, at := range []float64{r.Left, r.Now, r.Window, r.Right} {
			assert.True(t, 0 <= at && at <= 100, "%v", r)
		}
	}
	assert.Equal(t, "292 years ago", relative(always.Sub(now)))
}

// Minutes are counted where they belong, and graphs draw them there.
func TestHistory(t *testing.T) {
	var h history
	start := time.Date(2030, 1, 1, 12, 0, 30, 0, time.UTC)
	stats := func(connections int, handshakes, refused uint64) meta.ServerStats {
		return meta.ServerStats{Connections: connections, Refused: map[string]uint64{"certificate": refused},
			Handshakes: []meta.HandshakeStats{{Count: handshakes - 1}, {Count: 1, Resumed: true}}}
	}
	h.add(start, stats(3, 1000, 10)) // what came before nobody knows when
	h.add(start.Add(10*time.Second), stats(7, 1004, 10))
	h.add(start.Add(20*time.Second), stats(5, 1005, 10))
	h.add(start.Add(2*time.Minute), stats(1, 1005, 12))
	assert.Equal(t, []minute{
		{start.Truncate(time.Minute), 7, 5, 0},
		{start.Truncate(time.Minute).Add(2 * time.Minute), 1, 0, 2},
	}, h.minutes)

	g := graphs(h.minutes, start.Add(3*time.Minute))
	assert.Equal(t, []column{{56, 0, 20}, {58, 20 - 20.0/7, 20.0 / 7}}, g[0].Columns)
	assert.Equal(t, []column{{56, 0, 20}}, g[1].Columns)
	assert.Equal(t, []column{{58, 0, 20}}, g[2].Columns)
	assert.Zero(t, g[0].Now, "nobody has looked yet in this minute")
	assert.Equal(t, "Refusals, last hour: 0 this minute, at most 2", g[2].Label())

	h.add(start.Add(61*time.Minute), stats(0, 1005, 12))
	assert.Len(t, h.minutes, 2, "the first is more than an hour ago")
	h.add(start.Add(600*time.Minute), stats(0, 1005, 12))
	assert.Len(t, h.minutes, 1)
}

func TestWords(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 5e12: "5.0 TB", math.MaxUint64: "18446.7 PB"} {
		assert.Equal(t, want, size(n))
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		assert.Equal(t, want, count(n))
	}
	assert.Equal(t, "in 3 min", relative(3*time.Minute))
	assert.Equal(t, "3 years ago", relative(-3*366*day))
	assert.Equal(t, "1 entry", plural(1, "entry", "entries"))
	assert.Equal(t, "0 entries", plural(0, "entry", "entries"))
}

func FuzzPrintable(f *testing.F) {
	needs.Corpus(f)
	f.Add("CN=alice")
	f.Add("\u202ebad\x00\xff\n")
	f.Add(strings.Repeat("é", 300))
	f.Fuzz(func(t *testing.T, text string) {
		got := printable(text)
		assert.LessOrEqual(t, len([]rune(got)), 201)
		for _, r := range got {
			assert.True(t, unicode.IsPrint(r) || r == unicode.ReplacementChar)
		}
	})
}
