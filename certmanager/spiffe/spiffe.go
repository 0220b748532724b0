// Package spiffe is a source for a certmanager.Manager that gets certificates and trust from a
// SPIFFE Workload API, such as that of a SPIRE agent. Start with [Source]:
//
//	m, err := certmanager.New(certmanager.Options{
//		Source:     &spiffe.Source{},
//		ClientRule: certmanager.SPIFFEID("spiffe://example.org/web"),
//		ServerRule: certmanager.SPIFFEID("spiffe://example.org/db"),
//	})
//
// The agent streams the program's X509-SVIDs and the bundles of its trust domain and of federated
// domains. A rotation is in service as soon as the agent sends it, without polling. A peer is
// verified only with the bundle of its own trust domain. Rules decide which members may connect:
// without a rule every member of every domain may.
//
// While the agent is not reachable, its last certificate and bundles stay in service until they
// expire. JWT-SVIDs are not used.
package spiffe

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/ergotls/ergotls/certmanager"
)

// Source is a SPIFFE Workload API. The zero value is ready to use. Its fields must not be changed
// after the first use. Each Manager needs its own Source.
type Source struct {
	// Addr is the address of the Workload API, such as "unix:///run/spire/agent.sock". Empty is the
	// environment variable SPIFFE_ENDPOINT_SOCKET (SPIFFE Workload Endpoint, section 4).
	Addr string

	// ID is the SPIFFE ID to use if the agent sends several. Empty is the first, the default identity
	// (SPIFFE Workload API, section 5.3).
	ID string

	// StartTimeout is how long New waits for the agent. 0 means 30 seconds.
	StartTimeout time.Duration

	once  sync.Once
	first chan struct{} // closed when the agent has answered or the options are invalid

	mu       sync.Mutex // guards all below
	answered bool
	latest   *certmanager.Material
	err      error // of the last update; nil if it succeeded
}

func (s *Source) ready() {
	s.once.Do(func() {
		s.first = make(chan struct{})
		s.err = errors.New("the agent has not answered")
		if _, err := spiffeid.FromString(s.ID); s.ID != "" && err != nil {
			s.err = fmt.Errorf("Source.ID %q: %w", s.ID, err)
			s.answer()
		}
	})
}

// answer ends the wait of the first Load. The caller holds mu, or no other goroutine uses s yet.
func (s *Source) answer() {
	if !s.answered {
		s.answered = true
		close(s.first)
	}
}

// Load implements certmanager.Source. The first call waits for the agent, at most StartTimeout.
func (s *Source) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	s.ready()
	if previous == nil {
		timer := time.NewTimer(cmp.Or(s.StartTimeout, 30*time.Second))
		defer timer.Stop()
		select {
		case <-s.first:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return nil, fmt.Errorf("SPIFFE Workload API: %w", s.err)
	}
	return s.latest, nil
}

// Watch implements certmanager.Source. It receives the stream of the agent.
func (s *Source) Watch(ctx context.Context, changed func(), report func(certmanager.Event)) error {
	s.ready()
	var options []workloadapi.ClientOption
	if s.Addr != "" {
		options = append(options, workloadapi.WithAddr(s.Addr))
	}
	client, err := workloadapi.New(ctx, options...)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
		s.answer() // the address is invalid
		return fmt.Errorf("SPIFFE Workload API: %w", err)
	}
	defer client.Close()
	w := &watcher{s: s, changed: changed, report: report, end: time.AfterFunc(time.Hour, func() {})}
	defer func() { w.end.Stop() }()
	if err := client.WatchX509Context(ctx, w); ctx.Err() == nil {
		return fmt.Errorf("SPIFFE Workload API: %w", err)
	}
	return nil
}

// watcher handles updates of the agent. Its methods are called one at a time.
type watcher struct {
	s       *Source
	changed func()
	report  func(certmanager.Event)
	told    string      // the last failure that was reported
	end     *time.Timer // reports that the SVID has expired
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	m, err := w.s.material(update)
	if err != nil {
		w.OnX509ContextWatchError(err)
		return
	}
	w.told = ""
	w.s.mu.Lock()
	w.s.latest, w.s.err = m, nil
	w.s.answer()
	w.s.mu.Unlock()
	w.changed()
	w.end.Stop()
	leaf := m.Certificates[0].Leaf
	if left := time.Until(leaf.NotAfter); left > 0 {
		w.end = time.AfterFunc(left, func() {
			info := certmanager.NewCertificateInfo(leaf, m.Certificates[0].Origin)
			w.report(certmanager.Event{Kind: certmanager.Expired, Certificate: &info,
				Err: fmt.Errorf("%s: %w: it ended %s, and the agent has sent no other", info.Origin, certmanager.ErrExpired, leaf.NotAfter.UTC().Format(time.RFC3339))})
		})
	}
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher. The client retries by itself.
func (w *watcher) OnX509ContextWatchError(err error) {
	w.s.mu.Lock()
	w.s.err = err
	w.s.mu.Unlock()
	if text := err.Error(); text != w.told {
		w.told = text
		w.report(certmanager.Event{Kind: certmanager.Warning, Reason: "source",
			Err: fmt.Errorf("SPIFFE Workload API: %w; what it sent last stays in service until it expires", err)})
	}
}

// material converts an update to a Material.
func (s *Source) material(update *workloadapi.X509Context) (*certmanager.Material, error) {
	svids := update.SVIDs
	if s.ID != "" {
		svids = slices.DeleteFunc(slices.Clone(svids), func(svid *x509svid.SVID) bool { return svid.ID.String() != s.ID })
	}
	if len(svids) == 0 {
		return nil, fmt.Errorf("the agent sent no X509-SVID %s; it sent %d others", s.ID, len(update.SVIDs))
	}
	svid := svids[0]
	if bundle, ok := update.Bundles.Get(svid.ID.TrustDomain()); !ok || len(bundle.X509Authorities()) == 0 {
		return nil, fmt.Errorf("the agent sent no CA of %s", svid.ID.TrustDomain())
	}
	chain := tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, cert := range svid.Certificates {
		chain.Certificate = append(chain.Certificate, cert.Raw)
	}
	m := &certmanager.Material{
		Certificates: []certmanager.Certificate{{Certificate: chain, Origin: svid.ID.String(), Renewed: true}},
		TrustDomains: map[string][]*x509.Certificate{},
	}
	for _, bundle := range update.Bundles.Bundles() {
		m.TrustDomains[bundle.TrustDomain().Name()] = bundle.X509Authorities()
	}
	return m, nil
}
