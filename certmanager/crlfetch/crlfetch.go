// Package crlfetch is a source for a certmanager.Manager that fetches revocation lists from the web
// servers of their CAs. Start with [Source]:
//
//	files := certmanager.Files{Cert: "server.crt", Key: "server.key", ClientCAs: "clients.crt"}
//	m, err := certmanager.New(certmanager.Options{Source: &crlfetch.Source{
//		Source: files,
//		URLs:   []string{"http://ca.example.com/clients.crl"},
//		Dir:    "/var/lib/example/crls",
//	}})
//
// A list is fetched again before its nextUpdate. A fetched list is used only if a CA of the wrapped
// source signed it and it is not older than the one in use. The last good list stays in service,
// also after a restart, until there is a newer one. A failure is reported as an event.
//
// The addresses of lists come from the operator or from the program's own certificates, never from
// a peer's certificate. The package does not use delta lists, and does not support OCSP.
package crlfetch

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// Source wraps another source and adds revocation lists to its material. Its fields must not be
// changed after the first use. Each Manager needs its own Source. Invalid options are an error of
// New.
type Source struct {
	// Source provides the certificates and the CAs. A list must be signed by one of its CAs, chains or
	// CRLIssuers.
	Source certmanager.Source

	// URLs are the addresses of lists, http or https. A list is signed, so nobody can forge it, but
	// with http anyone on the path sees which list is fetched and can withhold it. If there is none
	// yet, they can also send an older one or that of another CA of Source. RequireFreshCRLs and Dir
	// limit that.
	URLs []string

	// DistributionPoints also fetches the lists at the CRL distribution points (RFC 5280 section
	// 4.2.1.13) in the certificates of Source: its leaves, their chains and its CAs. At most 200 lists
	// are fetched, those of URLs first.
	DistributionPoints bool

	// Dir is a folder for the last good lists, so that a restart does not depend on the network. It
	// is created if it does not exist. Empty keeps them in memory only.
	Dir string

	// Required makes the first load fail if a list is not in Dir and cannot be fetched. Otherwise that
	// is a warning, and the peers of that CA are not checked for revocation until the list is
	// available.
	Required bool

	// MinInterval is the minimum time between two requests for a list, and the first retry interval
	// after a failure. MaxInterval is the maximum time, regardless of nextUpdate. 0 means 5 minutes
	// and 24 hours.
	MinInterval, MaxInterval time.Duration

	// Timeout limits one request with its response. 0 means 1 minute.
	Timeout time.Duration

	// MaxSize is the largest list in bytes. 0 means 128 MiB.
	MaxSize int64

	// Client makes the requests. Nil means http.DefaultClient. Its Timeout applies too.
	Client *http.Client

	once sync.Once
	err  error // invalid options

	mu      sync.Mutex       // guards all below
	lists   map[string]*list // by URL; replaced, never modified
	issuers []*x509.Certificate
	changed func()
	report  func(certmanager.Event)
	wake    chan struct{} // capacity 1; signals that lists has changed
}

// startTimeout limits how long the first Load waits for lists that are not Required, reloadTimeout
// how long later ones wait for new lists, so that other changes are not delayed.
const (
	startTimeout  = 10 * time.Second
	reloadTimeout = time.Second
)

// maxURLs limits the number of lists.
const maxURLs = 200

// ready fills in the defaults, once.
func (s *Source) ready() error {
	s.once.Do(func() {
		s.lists, s.wake = map[string]*list{}, make(chan struct{}, 1)
		s.changed, s.report = func() {}, func(certmanager.Event) {}
		s.MinInterval = cmp.Or(s.MinInterval, 5*time.Minute)
		s.MaxInterval = cmp.Or(s.MaxInterval, 24*time.Hour)
		s.Timeout = cmp.Or(s.Timeout, time.Minute)
		s.MaxSize = cmp.Or(s.MaxSize, 128<<20)
		s.MaxSize = min(s.MaxSize, math.MaxInt64-1)                                                 // one byte more is read
		s.MinInterval, s.MaxInterval = min(s.MinInterval, clock.Far), min(s.MaxInterval, clock.Far) // jitter is added
		s.Client = cmp.Or(s.Client, http.DefaultClient)
		s.err = s.check()
	})
	return s.err
}

func (s *Source) check() error {
	switch {
	case s.Source == nil:
		return errors.New("crlfetch: Source.Source is missing: give the source of the CAs")
	case len(s.URLs) == 0 && !s.DistributionPoints:
		return errors.New("crlfetch: Source.URLs is empty and DistributionPoints not set: there is nothing to fetch")
	case s.MinInterval < 0 || s.MaxInterval < 0 || s.Timeout < 0 || s.MaxSize < 0:
		return errors.New("crlfetch: MinInterval, MaxInterval, Timeout and MaxSize must not be negative")
	case s.MinInterval > s.MaxInterval:
		return fmt.Errorf("crlfetch: MinInterval is %v, more than MaxInterval, %v", s.MinInterval, s.MaxInterval)
	}
	for i, text := range s.URLs {
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("crlfetch: Source.URLs[%d]: %q is not an http or https address", i, redacted(text))
		}
	}
	return nil
}

// redacted returns an address without its password.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil { // a password with a # or a % in it
		return address[strings.LastIndex(address, "@")+1:]
	}
	return u.Redacted()
}

// Watch implements certmanager.Source. It watches the wrapped source and fetches the lists when
// they are due.
func (s *Source) Watch(ctx context.Context, changed func(), report func(certmanager.Event)) error {
	if err := s.ready(); err != nil {
		return err
	}
	s.mu.Lock()
	s.changed, s.report = changed, report
	s.mu.Unlock()
	var all sync.WaitGroup
	defer all.Wait()
	// Sources watches again after an error or a panic: lists are fetched meanwhile.
	all.Go(func() { _ = certmanager.Sources{s.Source}.Watch(ctx, changed, report) })
	running := map[string]context.CancelFunc{}
	for {
		s.mu.Lock()
		lists := s.lists
		s.mu.Unlock()
		for address, l := range lists {
			if running[address] == nil {
				one, stop := context.WithCancel(ctx)
				running[address] = stop
				all.Go(func() { l.run(one) })
			}
		}
		for address, stop := range running {
			if lists[address] == nil {
				stop()
				delete(running, address)
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return nil
		}
	}
}
