// Package status is a page for operators. It shows the certificates in service and when they
// expire, the connections, the refused peers, and which peers would be disconnected without a CA.
//
// Start with [New], add managers and servers, and serve the [Page] to operators only:
//
//	page := status.New()
//	defer page.Close()
//	page.AddManager("main", manager, files)
//	page.AddServer("echo", server, "main")
//	listener, err := net.Listen("tcp", "localhost:8080")
//	...
//	page.Serve(listener)
//
// It is one HTML document that loads nothing else, refreshes itself, and works without scripts.
// With "Accept: application/json", or at status.json next to it, the page is JSON. healthz next to
// it answers 200 or 503, see [Page.SetHealth]. Any other path below it is 404.
//
// The page names peers and certificates, and shows no key material. [Page.Serve] accepts only
// listeners that no other machine can reach. As an http.Handler in another server the page does not
// authenticate: wrap it in [Token] or the program's own authentication.
package status

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
)

// sampling is how often the counters of servers are read for the graphs. A reader of the page has
// them read too.
const sampling = 10 * time.Second

// Page is the status page. Make one with [New]. Any goroutine may call its methods.
type Page struct {
	mu       sync.Mutex // guards the fields below, and what the maps hold
	managers map[string]*manager
	servers  map[string]*server
	events   journal
	checks   []Check // of healthz

	stop   chan struct{}
	closed sync.Once
	done   sync.WaitGroup
}

type manager struct {
	*certmanager.Manager
	source      certmanager.Source
	cancel      func()
	generations []generation
	recent      recent
	clientCAs   bundle
	rootCAs     bundle
}

type server struct {
	behavior gen.MetaBehavior
	manager  string
	history  history
}

// New returns a page that shows nothing yet. Its goroutine reads the counters of the servers every
// ten seconds, until Close.
func New() *Page {
	p := &Page{managers: map[string]*manager{}, servers: map[string]*server{}, checks: []Check{CertificatesValid}, stop: make(chan struct{})}
	p.done.Go(p.sample)
	return p
}

// Close ends the page's goroutine and its subscriptions. Close may be called twice.
func (p *Page) Close() error {
	p.closed.Do(func() { close(p.stop) })
	p.done.Wait()
	for _, name := range p.managerNames() {
		p.RemoveManager(name)
	}
	return nil
}

func (p *Page) managerNames() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.managers))
}

func (p *Page) sample() {
	ticker := time.NewTicker(sampling)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-ticker.C:
			p.mu.Lock()
			for _, s := range p.servers {
				s.history.add(now, meta.Stats(s.behavior))
			}
			p.mu.Unlock()
		}
	}
}

// AddManager shows a manager under a name, and replaces an earlier one of that name. If source is
// the manager's source, the page can show which peers would be disconnected without one of the CAs
// in its Files; nil leaves that out.
func (p *Page) AddManager(name string, m *certmanager.Manager, source certmanager.Source) {
	added := &manager{Manager: m, source: source}
	now := m.Status()
	added.note(&now)
	p.RemoveManager(name)
	added.cancel = m.Subscribe(func(e certmanager.Event) {
		now := m.Status()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events.add(name, e)
		added.recent.add(e)
		if e.Kind == certmanager.Loaded {
			added.note(&now)
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.managers[name] = added
}

// AddServer shows a server under a name, and replaces an earlier one of that name, for example
// after a restart of its owner. manager is the name of its certificate manager on the page, empty
// without TLS. AddServer panics if behavior was not returned by meta.CreateTCPServer.
func (p *Page) AddServer(name string, behavior gen.MetaBehavior, manager string) {
	added := &server{behavior: behavior, manager: manager}
	stats := meta.Stats(behavior)
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := p.servers[name]; last != nil {
		added.history.minutes = slices.Clone(last.history.minutes)
	}
	added.history.add(time.Now(), stats)
	p.servers[name] = added
}

// RemoveManager takes a manager off the page, if there is one of that name.
func (p *Page) RemoveManager(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := p.managers[name]; last != nil {
		last.cancel()
	}
	delete(p.managers, name)
}

// RemoveServer takes a server off the page, if there is one of that name.
func (p *Page) RemoveServer(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.servers, name)
}

// generation is when a set of certificates was put in service.
type generation struct {
	number uint64
	since  time.Time
}

// note remembers a generation, and no more than the last hundred. The caller holds the page's mu.
func (m *manager) note(status *certmanager.Status) {
	number, since := status.Generation, status.Published
	m.clientCAs.note(status.ClientCAs, since)
	m.rootCAs.note(status.RootCAs, since)
	if n := len(m.generations); n > 0 && m.generations[n-1].number >= number {
		return
	}
	m.generations = append(m.generations, generation{number, since})
	if len(m.generations) > 100 {
		m.generations = m.generations[1:]
	}
}

// at is the generation that was in service at a time; 0 if that is not known. The caller holds the
// page's mu.
func (m *manager) at(t time.Time) (number uint64) {
	for _, g := range m.generations {
		if !g.since.After(t) {
			number = g.number
		}
	}
	return number
}

// ServeHTTP implements http.Handler. It answers GET and HEAD.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this page is read-only", http.StatusMethodNotAllowed)
		return
	}
	if !known(r) {
		http.NotFound(w, r)
		return
	}
	if path.Base(r.URL.Path) == "healthz" {
		p.serveHealth(w, r)
		return
	}
	v := p.view(r.FormValue("ca"), r.FormValue("q"), time.Now())
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", policy)
	if wantsJSON(r) {
		writeJSON(w, v)
		return
	}
	writeHTML(w, v)
}
