package crlfetch

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/dn"
)

// kept is the Tag of a Material: the values that it was made from.
type kept struct {
	inner *certmanager.Material
	crls  []*x509.RevocationList
	warns string
}

// Load implements certmanager.Source. The first call waits until each list that is not in Dir has
// been requested once: at most 10 seconds, or with Required at most Timeout.
func (s *Source) Load(ctx context.Context, previous *certmanager.Material) (*certmanager.Material, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	var before *kept
	var inner *certmanager.Material
	if previous != nil && len(previous.Parts) == 2 {
		before, _ = previous.Parts[1].Tag.(*kept)
		inner = previous.Parts[0]
	}
	got, err := s.Source.Load(ctx, inner)
	if got == nil {
		return nil, err
	}
	urls, warnings := s.want(got)
	lists := s.use(issuersOf(got), urls)
	limit := s.Timeout
	switch {
	case previous != nil:
		limit = min(limit, reloadTimeout)
	case !s.Required:
		limit = min(limit, startTimeout)
	}
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for _, l := range lists {
		select {
		case <-l.fetched:
		case <-waiting.Done():
		}
	}
	crls, missing := collect(lists)
	if s.Required && before == nil && len(missing) > 0 {
		return nil, errors.Join(append(missing, err)...)
	}
	warnings = append(warnings, missing...)
	text := fmt.Sprint(warnings)
	if before != nil && before.inner == got && before.warns == text && slices.Equal(before.crls, crls) {
		return previous, err
	}
	own := &certmanager.Material{CRLs: crls, Warnings: warnings, Tag: &kept{got, crls, text}}
	return &certmanager.Material{Parts: []*certmanager.Material{got, own}}, err
}

// want returns the URLs to fetch for the material of the wrapped source.
func (s *Source) want(m *certmanager.Material) (urls []string, warnings []error) {
	urls = slices.Clone(s.URLs)
	if s.DistributionPoints {
		for _, cert := range certificatesOf(m) {
			for _, point := range cert.CRLDistributionPoints {
				if u, err := url.Parse(point); err != nil || u.Scheme != "http" && u.Scheme != "https" {
					warnings = append(warnings, fmt.Errorf("crlfetch: distribution point %q of %.200q is not fetched: only http and https are", point, dn.String(cert.Subject)))
				} else if !slices.Contains(urls, point) {
					urls = append(urls, point)
				}
			}
		}
	}
	if len(urls) > maxURLs {
		warnings = append(warnings, fmt.Errorf("crlfetch: there are %d addresses of lists; only the first %d are fetched", len(urls), maxURLs))
		urls = urls[:maxURLs]
	}
	if len(warnings) > 10 {
		warnings = append(warnings[:10], fmt.Errorf("crlfetch: and %d more distribution points are not fetched", len(warnings)-10))
	}
	return urls, warnings
}

// use sets the lists to fetch and the CAs that may sign them.
func (s *Source) use(issuers []*x509.Certificate, urls []string) (lists []*list) {
	s.mu.Lock()
	known := s.lists
	s.issuers = issuers
	s.mu.Unlock()
	wanted := map[string]*list{}
	for _, address := range urls {
		l := cmp.Or(wanted[address], known[address])
		if l == nil {
			l = newList(s, address, issuers)
		}
		wanted[address] = l
		lists = append(lists, l)
	}
	s.mu.Lock()
	s.lists = wanted
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return lists
}

// collect returns the available lists, and the reasons why others are missing.
func collect(lists []*list) (crls []*x509.RevocationList, missing []error) {
	for _, l := range lists {
		if crl, err := l.get(); crl != nil {
			crls = append(crls, crl)
		} else {
			missing = append(missing, fmt.Errorf("crlfetch: there is no revocation list of %s yet: %w", l.name, err))
		}
	}
	return crls, missing
}

// certificatesOf returns the certificates of a material, each once.
func certificatesOf(m *certmanager.Material) (all []*x509.Certificate) {
	seen := map[string]bool{}
	add := func(certs ...*x509.Certificate) {
		for _, cert := range certs {
			if !seen[string(cert.Raw)] {
				seen[string(cert.Raw)] = true
				all = append(all, cert)
			}
		}
	}
	for _, c := range m.Certificates {
		for _, der := range c.Certificate.Certificate {
			if cert, err := x509.ParseCertificate(der); err == nil { // the Manager reports the others
				add(cert)
			}
		}
	}
	add(m.ClientCAs...)
	add(m.RootCAs...)
	add(m.CRLIssuers...)
	for _, domain := range slices.Sorted(maps.Keys(m.TrustDomains)) {
		add(m.TrustDomains[domain]...)
	}
	for _, part := range m.Parts {
		add(certificatesOf(part)...)
	}
	return all
}

// issuersOf returns the certificates that may sign lists.
func issuersOf(m *certmanager.Material) []*x509.Certificate {
	return slices.DeleteFunc(certificatesOf(m), func(cert *x509.Certificate) bool { return !cert.IsCA })
}
