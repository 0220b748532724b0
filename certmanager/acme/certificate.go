package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// check returns an error if a certificate cannot be served for a name, now or once it is valid.
func (s *state) check(cert *tls.Certificate, name string) error {
	if err := cert.Leaf.VerifyHostname(strings.Replace(name, "*", "any", 1)); err != nil {
		return fmt.Errorf("%w: %w", certmanager.ErrInvalid, err)
	}
	if !trust.Allows(cert.Leaf, x509.ExtKeyUsageServerAuth) {
		return fmt.Errorf("%w: it is not for servers", certmanager.ErrInvalid)
	}
	if err := checkChain(cert); err != nil {
		return err
	}
	// A certificate that expires before the next check of watchClock is not put in service.
	if clock.Until(endOfService(cert.Leaf)) <= clockEvery {
		return fmt.Errorf("%w: on %s", certmanager.ErrExpired, cert.Leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// checkChain returns an error if a Manager would reject a chain, and with it the other certificates
// of the source. A chain is checked at a time when its leaf is valid.
func checkChain(cert *tls.Certificate) error {
	certs, err := trust.Parse(cert.Certificate)
	if err != nil {
		return err
	}
	now := clock.Now()
	if begin := cert.Leaf.NotBefore; now.Before(begin) {
		now = begin
	}
	_, _, err = trust.Arrange(certs[0], certs, now)
	return err
}

// newer reports whether a certificate was issued after another one. It may expire before it: the
// CAs of Fallbacks issue for other lifetimes.
func newer(cert, other *tls.Certificate) bool {
	return cmp.Or(cert.Leaf.NotBefore.Compare(other.Leaf.NotBefore), cert.Leaf.NotAfter.Compare(other.Leaf.NotAfter)) > 0
}

// load returns the newest certificate of a name in the cache, nil if none is usable. It may not be
// valid yet.
func (s *state) load(ctx context.Context, n *name) *tls.Certificate {
	var best *tls.Certificate
	var of *ca
	try := func(key string, c *ca) {
		cert, c := s.loadEntry(ctx, n, key, c)
		if cert != nil && (best == nil || newer(cert, best)) {
			best, of = cert, c
		}
	}
	for _, c := range s.cas {
		try(c.certKey(n), c)
	}
	if best == nil && !n.reported["reading"] {
		try(certCacheKey(n.file(), s.o.Key), nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if best != nil && (n.cert == nil || newer(best, n.cert)) {
		n.ca.Store(of)
	}
	return best
}

// loadEntry reads the entry of a certificate and returns it with its CA. A nil CA means an entry in
// autocert's layout, which is left alone if it is not usable. A cache that cannot be read is
// reported once per outage, since a shared cache is read every minute.
func (s *state) loadEntry(ctx context.Context, n *name, key string, c *ca) (*tls.Certificate, *ca) {
	data, err := s.get(ctx, key)
	if isMiss(err) {
		s.emitOnce(certmanager.CacheFailed, n, "reading", nil)
		return nil, nil
	}
	if s.ctx.Err() == nil {
		s.emitOnce(certmanager.CacheFailed, n, "reading", err)
	}
	if err != nil {
		return nil, nil
	}
	cert, err := decodeCached(data)
	if err == nil {
		err = s.check(cert, n.text)
	}
	switch {
	case errors.Is(err, certmanager.ErrExpired):
		s.keepExpired(n, cert)
		return nil, nil // otherwise it would be put in service and removed repeatedly until it expires
	case c == nil:
		if err == nil {
			c, err = s.issuer(cert)
		}
		if err != nil {
			err = fmt.Errorf("%s: %s is not used: %w", s.where(), key, err)
		}
		s.emitOnce(certmanager.Warning, n, "autocert", err)
	case err != nil:
		s.setAside(ctx, n.text, key, data, err)
	}
	if err != nil {
		return nil, nil
	}
	return cert, c
}

// keepExpired remembers a certificate that has expired by the clock of this machine, which may be
// ahead.
func (s *state) keepExpired(n *name, cert *tls.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.expired == nil || newer(cert, n.expired) {
		n.expired = cert
	}
}

// issuer returns the CA of the source that probably issued a certificate: the CA's roots, or the
// system's, verify it.
func (s *state) issuer(cert *tls.Certificate) (*ca, error) {
	chain, err := x509.ParseCertificates(slices.Concat(cert.Certificate...))
	if err != nil {
		return nil, err
	}
	o := x509.VerifyOptions{Intermediates: x509.NewCertPool(), CurrentTime: chain[0].NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	for _, c := range s.cas {
		o.Roots = c.Roots
		if _, err := chain[0].Verify(o); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("it was issued by %q, which does not appear to be the CA at %s", chain[0].Issuer, s.cas[0].Directory)
}

// save stores a certificate that is not in the cache yet. It reports a failure once.
func (s *state) save(ctx context.Context, n *name) {
	cert := n.unsaved.Load()
	if cert == nil {
		return
	}
	err := s.store(ctx, n, n.ca.Load(), cert)
	s.emitOnce(certmanager.CacheFailed, n, "storage", err)
	if err != nil {
		s.storageOK.Store(false)
		return
	}
	n.unsaved.Store(nil)
}

// store writes a certificate to the cache, even after ctx has ended, because orders are limited.
func (s *state) store(ctx context.Context, n *name, c *ca, cert *tls.Certificate) error {
	data, err := encodeCached(cert)
	if err != nil {
		return err
	}
	_, err = s.access(context.WithoutCancel(ctx), cacheTime(ctx), "writing", c.certKey(n), func(ctx context.Context) ([]byte, error) {
		return nil, s.o.Cache.Put(ctx, c.certKey(n), data)
	})
	return err
}
