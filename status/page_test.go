package status

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/echotest"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
}

func newPage(t *testing.T) (*echotest.Server, *Page) {
	t.Helper()
	s, p := echotest.Start(t), New()
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		require.NoError(t, p.Close(), "twice")
	})
	p.AddManager("main", s.Manager, s.Files)
	p.AddServer("echo", s.Meta, "main")
	return s, p
}

func get(p *Page, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	if len(header) > 0 {
		r.Header.Set("Accept", header[0])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func read(t *testing.T, p *Page, target string) (v view) {
	t.Helper()
	w := get(p, target)
	require.Equal(t, http.StatusOK, w.Code)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &v))
	return v
}

// What happened on a server is on the page and in the JSON.
func TestView(t *testing.T) {
	s, p := newPage(t)
	_, err := s.Dial(t, s.CA, tlstest.Leaf{CommonName: "alice"})
	require.NoError(t, err)
	_, err = s.Dial(t, tlstest.NewCA(t), tlstest.Leaf{CommonName: "mallory"})
	require.Error(t, err)
	serial := s.Rotate(t)
	_, err = s.Dial(t, s.Other, tlstest.Leaf{CommonName: "bob", URIs: []string{"spiffe://example.test/bob"}})
	require.NoError(t, err)

	assert.NotContains(t, get(p, "/status.json").Body.String(), "null")
	v := read(t, p, "/status.json")
	require.Len(t, v.Managers, 1)
	assert.Equal(t, "main", v.Managers[0].Name)
	assert.EqualValues(t, 2, v.Managers[0].Status.Generation)
	assert.Equal(t, serial, v.Managers[0].Status.Certificates[0].Serial)
	require.Len(t, v.Servers, 1)
	assert.Equal(t, 2, v.Servers[0].Stats.Connections)
	require.NotEmpty(t, v.Servers[0].Hour)
	var handshakes uint64
	for _, m := range v.Servers[0].Hour {
		handshakes += m.Handshakes
	}
	assert.EqualValues(t, 2, handshakes)
	require.Len(t, v.Connections, 2)
	assert.Equal(t, 2, v.ConnectionsTotal)
	bob, alice := v.Connections[0], v.Connections[1]
	assert.Equal(t, "spiffe://example.test/bob", bob.Peer)
	assert.EqualValues(t, 2, bob.Generation)
	assert.Equal(t, "CN=alice", alice.Peer)
	assert.EqualValues(t, 1, alice.Generation)
	assert.Equal(t, "TLS 1.3", alice.Version)
	assert.True(t, alice.Verified)
	assert.EqualValues(t, 5, alice.BytesIn)
	assert.Empty(t, v.Attention)
	require.Eventually(t, func() bool { return len(read(t, p, "/status.json").Events) == 2 }, 30*time.Second, 10*time.Millisecond)
	events := read(t, p, "/status.json").Events
	assert.Equal(t, certmanager.Loaded, events[0].Kind)
	assert.Equal(t, serial, events[0].Serial)
	assert.Equal(t, certmanager.PeerRefused, events[1].Kind)
	assert.Equal(t, "CN=mallory", events[1].Peer)

	html := get(p, "/").Body.String()
	for _, want := range []string{"All is well.", short(serial), "spiffe://example.test/bob", "CN=mallory", "CN=alice", s.Addr, "RequireAndVerifyClientCert"} {
		assert.Contains(t, html, want)
	}
	s.Break(t)
	assert.Contains(t, get(p, "/").Body.String(), "main: the last candidate was rejected")
	empty := New()
	assert.NotContains(t, get(empty, "/status.json").Body.String(), "null")
	require.NoError(t, empty.Close())
	p.RemoveServer("echo")
	p.RemoveManager("main")
	gone := read(t, p, "/status.json")
	assert.Empty(t, gone.Managers)
	assert.Empty(t, gone.Servers)
}

// The page can be read, and only that, by whoever it was served to, and only the parts of the page
// itself run in it.
func TestHTTP(t *testing.T) {
	s, p := newPage(t)
	for _, c := range []struct{ target, accept, want string }{
		{"/", "", "text/html; charset=utf-8"},
		{"/any/where/", "text/html,application/xhtml+xml,application/json;q=0.9", "text/html; charset=utf-8"},
		{"/", "application/json", "application/json"},
		{"/", "application/json;q=0.9, */*", "application/json"},
		{"/prefix/status.json", "text/html", "application/json"},
	} {
		w := get(p, c.target, c.accept)
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, c.want, w.Header().Get("Content-Type"), c)
	}
	w := get(p, "/")
	policy := w.Header().Get("Content-Security-Policy")
	assert.Contains(t, policy, "default-src 'none'")
	assert.NotContains(t, policy, "unsafe")
	assert.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	html := w.Body.String()
	for _, part := range []string{"style", "script"} {
		_, rest, _ := strings.Cut(html, "<"+part+">")
		text, _, found := strings.Cut(rest, "</"+part+">")
		require.True(t, found)
		assert.Contains(t, policy, part+"-src "+hashOf(text), "what is in the page is what the policy lets run")
	}
	for _, outside := range []string{"http://", "https://", "//cdn", "@import", "src="} {
		assert.NotContains(t, html, outside)
	}
	key, err := os.ReadFile(s.Files.Key)
	require.NoError(t, err)
	assert.NotContains(t, html+get(p, "/status.json").Body.String(), strings.Split(string(key), "\n")[1])
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
		assert.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
	}
	server := httptest.NewServer(p)
	defer server.Close()
	resp, err := server.Client().Head(server.URL)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	server.Client().CloseIdleConnections()
}

// The counters are read also while nobody looks, until Close; a server that is started again
// continues its hour.
func TestSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		for range 2 {
			server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1"})
			require.NoError(t, err)
			defer server.Terminate(nil)
			p.AddServer("s", server, "")
			time.Sleep(40 * time.Minute)
			synctest.Wait()
		}
		p.mu.Lock()
		minutes := p.servers["s"].history.minutes
		p.mu.Unlock()
		require.Len(t, minutes, hour)
		for i, m := range minutes[1:] {
			assert.Equal(t, time.Minute, m.Start.Sub(minutes[i].Start))
		}
		require.NoError(t, p.Close())
	})
	assert.Panics(t, func() {
		connection, _ := meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1})
		defer connection.Terminate(nil)
		(&Page{}).AddServer("no server", connection, "")
	})
}

// However many strangers are refused, the last rotation stays on the page, and what they are called
// is harmless.
func TestStrangersFloodNothing(t *testing.T) {
	var j journal
	j.add("m", certmanager.Event{Kind: certmanager.Loaded})
	for i := range 1000 {
		j.add("m", certmanager.Event{Kind: certmanager.PeerRefused, Err: fmt.Errorf("%d", i), Peer: &certmanager.PeerInfo{
			CertificateInfo: certmanager.CertificateInfo{Subject: "CN=" + strings.Repeat("\u202e<b>", 10_000)}}})
	}
	assert.Len(t, j.own, 1)
	require.Len(t, j.peers, journalSize)
	assert.Equal(t, "999", j.peers[journalSize-1].Error)
	assert.Len(t, []rune(j.peers[0].Peer), 201)
	assert.NotContains(t, j.peers[0].Peer, "\u202e", "it would turn the line around")

	p := New()
	defer p.Close()
	p.events = j
	html := get(p, "/").Body.String()
	assert.NotContains(t, html, "<b>G")
	assert.NotContains(t, html, "\uFFFD<b>")
	assert.Contains(t, html, "\uFFFD&lt;b&gt;")
	assert.Less(t, len(html), 150_000)
	assert.Contains(t, html, "950 earlier refusals and evictions are not shown")
}

// Long lists are cut, and it says so.
func TestManyCertificates(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	for i := range 250 {
		ca.Issue(t, tlstest.Leaf{Names: []string{fmt.Sprintf("%d.test", i)}, NotAfter: time.Now().Add(time.Duration(1000-i) * time.Hour)}).Files(t, dir, fmt.Sprint(i))
	}
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Dir: dir}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer m.Close()
	p := New()
	defer p.Close()
	p.AddManager("many", m, nil)
	v := p.view("", "", time.Now())
	assert.Len(t, v.Managers[0].Rows, folded)
	assert.Len(t, v.Managers[0].Folded, maxRows-folded)
	assert.Equal(t, 50, v.Managers[0].Hidden)
	assert.Equal(t, "249.test", v.Managers[0].Rows[0].Name, "the first to end")
	assert.Len(t, v.Managers[0].Status.Certificates, maxRows)
	html := get(p, "/").Body.String()
	assert.Contains(t, html, "and 50 more")
	assert.Contains(t, html, "<summary>and 180 more</summary>")
	assert.Contains(t, html, `type="search"`)
	assert.Equal(t, 2, strings.Count(html, `<table class="lines"`))
	// The search also finds what there is no room for, and works without scripts.
	html = get(p, "/?q=3.TEST").Body.String()
	assert.Contains(t, html, ">13.test<")
	assert.NotContains(t, html, ">14.test<")
	html = get(p, "/?q=%3Cscript%3Ealert(1)%3C/script%3E").Body.String()
	assert.Contains(t, html, "No certificate has")
	assert.NotContains(t, html, "<script>alert")
	late := p.view("", "", time.Now().Add(1001*time.Hour))
	assert.Equal(t, []string{"many: certificate 249.test ended 10 days ago"}, late.Attention[:1])
	assert.Contains(t, late.Attention, "many: and 247 more that are ended")
	assert.Len(t, late.Attention, 4)
}

// The chain behind a certificate ends too, and often nobody thinks of that.
func TestIntermediates(t *testing.T) {
	ca := tlstest.NewCA(t).Intermediate(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(20 * day) })
	var files certmanager.Files
	files.Cert, files.Key = ca.Issue(t, tlstest.Leaf{}).Files(t, t.TempDir(), "server")
	m, err := certmanager.New(certmanager.Options{Source: files, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer m.Close()
	p := New()
	defer p.Close()
	p.AddManager("main", m, nil)
	v := p.view("", "", time.Now())
	require.Len(t, v.Managers[0].Rows, 2)
	assert.Equal(t, "Intermediate", v.Managers[0].Rows[1].Kind)
	assert.Equal(t, []string{"main: intermediate " + ca.Certificate().Subject.String() + " ends in 19 days"}, v.Attention)
	assert.Equal(t, ca.Certificate().SerialNumber.Text(16), v.Managers[0].Status.Intermediates[0].Serial)
}

// What a look at the page costs the program, with 250 certificates.
func BenchmarkPage(b *testing.B) {
	ca, dir := tlstest.NewCA(b), b.TempDir()
	for i := range 250 {
		ca.Issue(b, tlstest.Leaf{Names: []string{fmt.Sprintf("%d.test", i)}}).Files(b, dir, fmt.Sprint(i))
	}
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Dir: dir}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	defer m.Close()
	p := New()
	defer p.Close()
	p.AddManager("many", m, nil)
	for _, target := range []string{"/", "/status.json"} {
		b.Run(target, func(b *testing.B) {
			for b.Loop() {
				get(p, target)
			}
		})
	}
}

func TestAttention(t *testing.T) {
	s := certmanager.Status{
		Polling: "file events are not reliable", ReportOnly: true,
		ACME: []certmanager.OrderStatus{{Name: "a.test", Serving: true, Unsaved: true}, {Name: "b.test", Serving: true}},
	}
	assert.Equal(t, []string{
		"main: file events are not reliable",
		"main: 1 certificates could not be stored, and would be ordered again after a restart",
		"main: ReportOnly is set: peers that rules or revocation lists refuse are accepted",
	}, attention("main", &s, nil))
	ends := attention("main", &certmanager.Status{ACME: []certmanager.OrderStatus{{Name: "c.test", Serving: true, RecordUntil: time.Now().Add(day)}}}, nil)
	require.Len(t, ends, 1)
	assert.Contains(t, ends[0], "the DNS record by which c.test is issued ends on")
	assert.Empty(t, attention("main", &certmanager.Status{ACME: []certmanager.OrderStatus{{Name: "b.test", Serving: true}}}, nil))
}

// Which process, and which machine, the page is about.
func TestProgram(t *testing.T) {
	_, p := newPage(t)
	v := read(t, p, "/status.json")
	host, err := os.Hostname()
	require.NoError(t, err)
	assert.Equal(t, host, v.Program.Host)
	assert.Equal(t, os.Getpid(), v.Program.PID)
	assert.False(t, v.Program.Started.IsZero())
	html := get(p, "/").Body.String()
	assert.Contains(t, html, fmt.Sprintf("pid %d, go", os.Getpid()))
	for _, part := range []string{"manager-0", "servers", "connections", "events"} {
		assert.Contains(t, html, `<a href="#`+part+`">`)
		assert.Contains(t, html, `<section id="`+part+`"`)
	}
}

// A page that says that all is well while everybody was just sent away is not believed the next
// time.
func TestEvictionsAreRecent(t *testing.T) {
	s, p := newPage(t)
	_, err := s.Dial(t, s.CA, tlstest.Leaf{CommonName: "alice"})
	require.NoError(t, err)
	html := get(p, "/").Body.String()
	assert.Contains(t, html, "All is well.")
	assert.Contains(t, html, "not changed since this page was started")
	assert.NotContains(t, html, "There are no connections")
	s.Manager.SetClientCAs(tlstest.NewCA(t).Pool())
	require.Eventually(t, func() bool {
		v := read(t, p, "/status.json")
		return len(v.Recent) == 1 && strings.Contains(v.Recent[0], "main: 1 connection was closed")
	}, 30*time.Second, 10*time.Millisecond)
	html = get(p, "/").Body.String()
	assert.NotContains(t, html, "All is well.")
	assert.Contains(t, html, "connections were closed in the last ten minutes")
	later := p.view("", "", time.Now().Add(recently+2*time.Minute))
	assert.Empty(t, later.Recent)
	assert.False(t, later.Evicted)
}

func TestShortSerialsDiffer(t *testing.T) {
	assert.Equal(t, "01ab", short("01ab"))
	base := strings.Repeat("a", 30)
	assert.NotEqual(t, short(base+"01"), short(base+"02"), "of a CA that counts")
	assert.NotEqual(t, short("01"+base), short("02"+base))
}

// The number beside the graph is that of the table.
func TestConnectionsAgree(t *testing.T) {
	s, p := newPage(t)
	conn, err := s.Dial(t, s.CA, tlstest.Leaf{CommonName: "alice"})
	require.NoError(t, err)
	v := p.view("", "", time.Now())
	assert.EqualValues(t, 1, v.Servers[0].Graphs[0].Now)
	assert.Equal(t, 1, v.ConnectionsTotal)
	conn.Close()
	require.Eventually(t, func() bool { return p.view("", "", time.Now()).ConnectionsTotal == 0 }, 30*time.Second, 10*time.Millisecond)
	v = p.view("", "", time.Now())
	assert.Zero(t, v.Servers[0].Graphs[0].Now)
	assert.Contains(t, get(p, "/?q=alice").Body.String(), "There are no connections.")
}

// However many names clients ask for, those of Domains are on the page, and what is wrong with them
// is said.
func TestNamesOfClientsHideNoDomain(t *testing.T) {
	var all []certmanager.OrderStatus
	for i := range 1000 {
		all = append(all, certmanager.OrderStatus{Name: fmt.Sprintf("%03d.test", i), OnDemand: true, Failures: 1, Error: "no such host"})
	}
	s := certmanager.Status{ACME: append(all, certmanager.OrderStatus{Name: "ours.test", Failures: 1, Error: "forbidden"})}
	domainsFirst(&s)
	assert.Contains(t, strings.Join(attention("main", &s, nil), "\n"), "ours.test was not issued")
	s = bounded(s)
	assert.Equal(t, "ours.test", s.ACME[0].Name)
	assert.Len(t, s.ACME, maxRows)
}
