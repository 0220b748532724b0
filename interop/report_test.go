package interop

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// measured is what the tests have found.
var measured report

type report struct {
	mu    sync.Mutex // guards all below
	cells []cell
}

// cell is one measurement.
type cell struct {
	program, version string
	role             string // of the program
	dimension        string
	tls              string // version
	result           string // "yes", why not, or what was said at a refusal
}

func (r *report) add(c cell) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cells = append(r.cells, c)
}

// subject is a program in a role.
type subject struct{ name, version, role string }

func (s subject) add(dimension, tls, result string) {
	measured.add(cell{s.name, s.version, s.role, dimension, tls, result})
}

// missing is for a test of a program that may have been skipped: the table says so.
func (s subject) missing(t *testing.T) {
	if t.Skipped() {
		s.add("", "", "not installed")
	}
}

const preamble = `# Interoperability

Each cell is a real program against the echo server or the client of this project, over the loopback interface. This file is
written by ` + "`make interop`" + ` (` + "`go test ./interop -write`" + `), from what was measured; CI runs the same tests. The certificates are
ECDSA P-256 under a private root. What is not "yes" has its reason beside it.

| program | version |
|---|---|
`

const refusalNote = `
crypto/tls refuses a client without a certificate by handshake_failure in TLS 1.2, which has no better alert, and by
certificate_required in TLS 1.3; a revoked one by bad_certificate in both, because a callback can't choose the alert
(certificate_revoked would be the right one by RFC 8446 section 6.2). In TLS 1.3 a client hears of it after its own handshake is complete, at its
first read.
`

// document renders the table, in the order of the tests.
func (r *report) document() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.cells, func(a, b cell) int { return strings.Compare(strings.ToLower(a.program), strings.ToLower(b.program)) })
	var kinds []string
	for _, refusal := range refusals {
		kinds = append(kinds, refusal.kind)
	}
	var b bytes.Buffer
	b.WriteString(preamble)
	seen := map[string]bool{}
	for _, c := range r.cells {
		if c.role != "refused" && !seen[c.program] && (c.version != "" || c.dimension == "") {
			fmt.Fprintf(&b, "| %s | %s |\n", c.program, cmp.Or(c.version, c.result))
			seen[c.program] = true
		}
	}
	r.table(&b, "Clients of our server", "client", []string{"TLS", "mTLS", "ALPN", "resumption", "StartTLS"})
	b.WriteString("\nResumption is over mTLS: the resumed session carries the identity.\n")
	r.table(&b, "What clients say when our server refuses them", "client", kinds)
	b.WriteString(refusalNote)
	r.table(&b, "How often Java hears the alert of its refusal on TLS 1.2", "refused", kinds)
	r.table(&b, "Servers of our client", "server", []string{"TLS", "mTLS", "ALPN", "resumption", "reconnect", "PROXY header"})
	b.WriteString("\nReconnect: the server is killed and started again; the client of `Reconnect` hears of it, gets back what it sent meanwhile, and talks to the new one.\n")
	r.table(&b, "What our client hears when a server refuses it", "server", kinds)
	r.table(&b, "What servers say when our client refuses them", "server", []string{"unknown root"})
	r.table(&b, "Scanners", "scanner", []string{"ecdsa", "rsa"})
	return b.Bytes()
}

func (r *report) table(b *bytes.Buffer, title, role string, dimensions []string) {
	fmt.Fprintf(b, "\n## %s\n\n| program | %s |\n|---|%s\n", title, strings.Join(dimensions, " | "), strings.Repeat("---|", len(dimensions)))
	var programs []string
	for _, c := range r.cells {
		if c.role == role && (c.dimension == "" || slices.Contains(dimensions, c.dimension)) && !slices.Contains(programs, c.program) {
			programs = append(programs, c.program)
		}
	}
	for _, program := range programs {
		fmt.Fprintf(b, "| %s |", program)
		for _, dimension := range dimensions {
			fmt.Fprintf(b, " %s |", r.results(program, role, dimension))
		}
		b.WriteString("\n")
	}
}

// results gives one field of a table: both versions together where they have the same result.
func (r *report) results(program, role, dimension string) string {
	var found []cell
	for _, c := range r.cells {
		if c.program == program && c.role == role && (c.dimension == dimension || c.dimension == "") {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, func(a, b cell) int { return strings.Compare(a.tls, b.tls) })
	if len(found) == 0 {
		return "–"
	}
	same := !slices.ContainsFunc(found, func(c cell) bool { return c.result != found[0].result })
	if same {
		return escape(found[0].result)
	}
	var parts []string
	for _, c := range found {
		parts = append(parts, c.tls+": "+escape(c.result))
	}
	return strings.Join(parts, "<br>")
}

func escape(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "\n", " ").Replace(s)
}

var (
	addresses = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	spaces    = regexp.MustCompile(`\s+`)
)

// said extracts what a program complains about: the first group of pattern, without what differs
// from run to run.
func said(pattern *regexp.Regexp, output string) string {
	match := pattern.FindStringSubmatch(output)
	if match == nil {
		return ""
	}
	text := addresses.ReplaceAllString(match[1], "127.0.0.1:port")
	text = strings.ReplaceAll(text, certs.dir+"/", "")
	return strings.TrimSpace(spaces.ReplaceAllString(text, " "))
}
