package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// maxRows bounds every list on the page, and in the JSON.
const maxRows = 200

// view is the page at one moment. It is what the JSON has.
type view struct {
	Time             time.Time
	Program          program
	Attention        []string // what someone should look at; empty is well
	Recent           []string // what happened in the last ten minutes
	Managers         []managerView
	Servers          []serverView
	Connections      []connectionView // the newest first
	ConnectionsTotal int
	Impact           *impactView `json:",omitempty"`
	Events           []eventView // the newest first
	MorePeers        int         // refusals and evictions before those in Events

	Choices []choice `json:"-"`
	Evicted bool     `json:"-"` // Recent has closed connections
	Query   string   `json:"-"` // what certificates and connections are searched for
	Long    bool     `json:"-"` // there is enough to search
}

// folded is how many rows are shown of a list before it folds.
const folded = 20

// matches reports whether one of the texts contains the search term.
func (v *view) matches(texts ...string) bool {
	query := strings.ToLower(v.Query)
	return query == "" || slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(strings.ToLower(text), query) })
}

type managerView struct {
	Name   string
	Status certmanager.Status
	Rows   []row `json:"-"` // the time line
	Folded []row `json:"-"` // those of it that are folded
	Hidden int   `json:"-"` // rows that there were too many of

	ClientCAs string `json:"-"` // how many, and when they changed last
	RootCAs   string `json:"-"`
}

type serverView struct {
	Name    string
	Manager string `json:",omitempty"`
	Stats   meta.ServerStats
	Hour    []minute
	Graphs  []graph `json:"-"`
}

type connectionView struct {
	Server     string
	Peer       string // SPIFFE ID, or subject
	Verified   bool
	Serial     string `json:",omitempty"`
	Remote     string
	Version    string `json:",omitempty"`
	Name       string `json:",omitempty"` // that the client asked for (SNI)
	Resumed    bool
	Generation uint64 `json:",omitempty"` // in service when it opened, as far as is known
	Opened     time.Time
	State      string
	BytesIn    uint64
	BytesOut   uint64
	Waiting    uint64 // bytes to be written
}

// view looks at everything. ca is a choice, or empty; query is searched for in certificates and
// connections.
func (p *Page) view(ca, query string, now time.Time) *view {
	v := &view{Time: now, Program: thisProgram(), Query: printable(strings.TrimSpace(query)), Recent: []string{}, Attention: []string{}, Managers: []managerView{}, Servers: []serverView{}, Connections: []connectionView{}} // lists, not null, in the JSON
	p.mu.Lock()
	managers, servers := maps.Clone(p.managers), maps.Clone(p.servers)
	v.Events = append(append([]eventView{}, p.events.own...), p.events.peers...)
	v.MorePeers = p.events.more
	p.mu.Unlock()
	slices.Reverse(v.Events)
	slices.SortStableFunc(v.Events, func(a, b eventView) int { return b.Time.Compare(a.Time) })

	for _, name := range slices.Sorted(maps.Keys(managers)) {
		m := managers[name]
		status := m.Status()
		domainsFirst(&status)
		p.mu.Lock()
		m.note(&status)
		recent, evicted := m.recent.says(name, now)
		mv := managerView{
			Name: name, Rows: rows(&status, now),
			ClientCAs: m.clientCAs.says(len(status.ClientCAs), now), RootCAs: m.rootCAs.says(len(status.RootCAs), now),
		}
		p.mu.Unlock()
		if v.Evicted = v.Evicted || evicted; recent != "" {
			v.Recent = append(v.Recent, recent)
		}
		v.Attention = append(v.Attention, attention(name, &status, mv.Rows)...)
		v.Long = v.Long || len(mv.Rows) > folded
		mv.Rows = slices.DeleteFunc(mv.Rows, func(r row) bool { return !v.matches(r.Name, r.Detail, r.Serial, r.Kind) })
		mv.Hidden = max(0, len(mv.Rows)-maxRows)
		mv.Rows = mv.Rows[:len(mv.Rows)-mv.Hidden]
		if len(mv.Rows) > folded {
			mv.Rows, mv.Folded = mv.Rows[:folded], mv.Rows[folded:]
		}
		if m.source != nil {
			v.Choices = append(v.Choices, choices(name, &status, ca)...)
		}
		mv.Status = bounded(status)
		v.Managers = append(v.Managers, mv)
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		s := servers[name]
		p.mu.Lock()
		stats := meta.Stats(s.behavior) // under mu: in the order in which they are read they are added
		s.history.add(now, stats)
		stats.Handshakes = cut(stats.Handshakes)
		minutes := slices.Clone(s.history.minutes)
		p.mu.Unlock()
		open := meta.Connections(s.behavior)
		drawn := graphs(minutes, now)
		drawn[0].Now = uint64(len(open)) // as many as the table below has, and not the most of this minute
		v.Servers = append(v.Servers, serverView{name, s.manager, stats, minutes, drawn})
		v.ConnectionsTotal += len(open)
		v.Long = v.Long || len(open) > folded
		open = slices.DeleteFunc(open, func(c meta.ConnectionStats) bool {
			remote := ""
			if c.Peer.Addr != nil {
				remote = c.Peer.Addr.String()
			}
			return !v.matches(c.Peer.SPIFFE, c.Peer.Subject, c.Peer.Serial, c.Peer.SNI, remote)
		})
		v.Connections = append(v.Connections, p.connections(name, managers[s.manager], open[max(0, len(open)-maxRows):])...)
	}
	slices.SortStableFunc(v.Connections, func(a, b connectionView) int { return b.Opened.Compare(a.Opened) })
	v.Connections = v.Connections[:min(maxRows, len(v.Connections))]
	for _, c := range v.Choices {
		if c.Chosen {
			v.Impact = askImpact(managers[c.Manager], c)
		}
	}
	return v
}

// connections are those of a server; m is nil if its manager is not on the page.
func (p *Page) connections(name string, m *manager, open []meta.ConnectionStats) (all []connectionView) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range open {
		v := connectionView{
			Server: name, Peer: printable(c.Peer.SPIFFE), Verified: c.Peer.Verified, Serial: printable(c.Peer.Serial),
			Version: c.Peer.Version, Name: printable(c.Peer.SNI), Resumed: c.Peer.Resumed, Opened: c.Opened,
			State: printable(c.State), BytesIn: c.BytesIn, BytesOut: c.BytesOut, Waiting: c.BytesWaiting,
		}
		if v.Peer == "" {
			v.Peer = printable(c.Peer.Subject)
		}
		if c.Peer.Addr != nil {
			v.Remote = printable(c.Peer.Addr.String())
		}
		if m != nil {
			v.Generation = m.at(c.Opened)
		}
		all = append(all, v)
	}
	return all
}

// domainsFirst moves the names that clients ask for behind those of Domains, so that they do not
// push these off the page.
func domainsFirst(s *certmanager.Status) {
	slices.SortStableFunc(s.ACME, func(a, b certmanager.OrderStatus) int {
		switch {
		case a.OnDemand == b.OnDemand:
			return 0
		case b.OnDemand:
			return -1
		}
		return 1
	})
}

// bounded cuts what can be long.
func bounded(s certmanager.Status) certmanager.Status {
	s.Certificates, s.Intermediates = cut(s.Certificates), cut(s.Intermediates)
	s.ClientCAs, s.RootCAs = cut(s.ClientCAs), cut(s.RootCAs)
	s.CRLs, s.ACME = cut(s.CRLs), cut(s.ACME)
	s.LastError = printable(s.LastError)
	for i := range s.ACME {
		a := &s.ACME[i]
		a.Name, a.Error, a.CA, a.Challenge, a.Record = printable(a.Name), printable(a.Error), printable(a.CA), printable(a.Challenge), printable(a.Record)
	}
	return s
}

// cut returns the first elements of a list. It returns an empty list for nil, which would be null
// in the JSON.
func cut[T any](all []T) []T { return append([]T{}, all[:min(maxRows, len(all))]...) }

// attention returns what an operator should look at.
func attention(name string, s *certmanager.Status, rows []row) (all []string) {
	say := func(format string, args ...any) { all = append(all, name+": "+fmt.Sprintf(format, args...)) }
	if s.Drift {
		say("the last candidate was rejected: %s", printable(s.LastError))
	}
	for _, warning := range cut(s.Warnings) {
		say("%s", printable(warning))
	}
	if s.Polling != "" {
		say("%s", printable(s.Polling))
	}
	count := map[string]int{}
	for _, r := range rows {
		if r.State != "" {
			if count[r.State]++; count[r.State] <= 3 {
				say("%s %s %s", strings.ToLower(r.Kind[:1])+r.Kind[1:], r.Name, r.Says)
			}
		}
	}
	for _, state := range slices.Sorted(maps.Keys(count)) {
		if more := count[state] - 3; more > 0 {
			say("and %d more that are %s", more, state)
		}
	}
	failing, unsaved := 0, 0
	for _, a := range s.ACME {
		if a.Unsaved {
			unsaved++
		}
		if a.Failures > 0 {
			if failing++; failing <= 3 {
				say("%s was not issued, %d times in a row: %s", printable(a.Name), a.Failures, printable(a.Error))
			}
		}
	}
	for _, a := range s.ACME {
		if left := time.Until(a.RecordUntil); !a.RecordUntil.IsZero() && left < 14*24*time.Hour {
			say("the DNS record by which %s is issued ends on %s: replace it", printable(a.Name), a.RecordUntil.UTC().Format(time.DateOnly))
		}
	}
	if failing > 3 {
		say("and %d more names were not issued", failing-3)
	}
	if unsaved > 0 {
		say("%d certificates could not be stored, and would be ordered again after a restart", unsaved)
	}
	if s.ReportOnly {
		say("ReportOnly is set: peers that rules or revocation lists refuse are accepted")
	}
	if s.KeyLog {
		say("SSLKEYLOGFILE is set: every connection can be decrypted with it")
	}
	return all
}

// printable makes a text that a peer may have chosen fit for a line: 200 characters at most, none
// of which changes how others are shown.
func printable(text string) string {
	n := 0
	for i := range text {
		if n++; n > 200 {
			text = text[:i] + "…"
			break
		}
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
