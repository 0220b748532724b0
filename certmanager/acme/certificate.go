package acme

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// issued says whether a certificate is of this CA, as far as its chain tells: by the Roots of a
// private CA, by the names of Let's Encrypt, or by the host names that the certificate gives for
// its issuer.
func (c *ca) issued(cert *tls.Certificate) error {
	chain, err := x509.ParseCertificates(slices.Concat(cert.Certificate...))
	if err != nil {
		return err
	}
	var ok bool
	switch c.Directory {
	case autocert.DefaultACMEDirectory:
		ok = issuedBy(chain, "Let's Encrypt") && !issuedBy(chain, "(STAGING)")
	case directoryStaging:
		ok = issuedBy(chain, "(STAGING)")
	default:
		ok = c.Roots != nil && verifies(chain, c.Roots) || sameDomain(c.Directory, chain[0])
	}
	if !ok {
		return fmt.Errorf("it was issued by %q, and not, as far as can be told, by the CA at %s", chain[0].Issuer, c.Directory)
	}
	return nil
}

// issuedBy says whether an issuer in the chain has a text in its name.
func issuedBy(chain []*x509.Certificate, text string) bool {
	return slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return strings.Contains(c.Issuer.String(), text) })
}

func verifies(chain []*x509.Certificate, roots *x509.CertPool) bool {
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: chain[0].NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, cert := range chain[1:] {
		o.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(o)
	return err == nil
}

// sameDomain says whether the issuer's URLs in a certificate and the directory have the same last
// two labels.
func sameDomain(directory string, leaf *x509.Certificate) bool {
	domain := lastLabels(directory)
	same := func(u string) bool { return domain != "" && lastLabels(u) == domain }
	return slices.ContainsFunc(leaf.IssuingCertificateURL, same) || slices.ContainsFunc(leaf.OCSPServer, same) || slices.ContainsFunc(leaf.CRLDistributionPoints, same)
}

func lastLabels(address string) string {
	u, err := url.Parse(address)
	if err != nil || isAddress(u.Hostname()) {
		return ""
	}
	labels := strings.Split(u.Hostname(), ".")
	if len(labels) < 2 {
		return ""
	}
	return strings.Join(labels[len(labels)-2:], ".")
}

// check says whether a certificate can be served for a name now.
func (s *state) check(cert *tls.Certificate, name string) error {
	if err := cert.Leaf.VerifyHostname(strings.Replace(name, "*", "any", 1)); err != nil {
		return fmt.Errorf("%w: %w", certmanager.ErrInvalid, err)
	}
	if !forServers(cert.Leaf) {
		return fmt.Errorf("%w: it is not for servers", certmanager.ErrInvalid)
	}
	if _, isRSA := cert.PrivateKey.(*rsa.PrivateKey); isRSA != (s.o.Key == RSA2048) {
		return fmt.Errorf("%w: its key is not of the type that acme.Source.Key asks for", certmanager.ErrInvalid)
	}
	switch now := clock.Now(); {
	case now.After(cert.Leaf.NotAfter):
		return fmt.Errorf("%w: on %s", certmanager.ErrExpired, cert.Leaf.NotAfter.Format(time.RFC3339))
	case now.Before(cert.Leaf.NotBefore):
		return fmt.Errorf("%w: before %s", certmanager.ErrNotYetValid, cert.Leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

func forServers(leaf *x509.Certificate) bool {
	return len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 ||
		slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// load returns the certificate of a name from the cache that ends last, nil if there is none of
// use. It may not be valid yet. A cache that cannot be read is reported once, until it can: where
// it is shared it is read every minute.
func (s *state) load(ctx context.Context, n *name) *tls.Certificate {
	var best *tls.Certificate
	var of *ca
	better := func(cert *tls.Certificate, c *ca) {
		if cert != nil && (best == nil || cert.Leaf.NotAfter.After(best.Leaf.NotAfter)) {
			best, of = cert, c
		}
	}
	for _, c := range s.cas {
		better(s.loadEntry(ctx, n, c.certKey(n), false), c)
	}
	if best == nil && !n.unread {
		if cert := s.loadEntry(ctx, n, certCacheKey(n.file(), s.o.Key), true); cert != nil {
			better(cert, s.issuer(cert))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if best != nil && (n.cert == nil || best.Leaf.NotAfter.After(n.cert.Leaf.NotAfter)) {
		n.ca = of
	}
	return best
}

// issuer is the CA that issued a certificate, nil if none of the source's did.
func (s *state) issuer(cert *tls.Certificate) *ca {
	for _, c := range s.cas {
		if c.issued(cert) == nil {
			return c
		}
	}
	return nil
}

// loadEntry reads one entry. One in autocert's layout may be of another CA, and is left as it is.
func (s *state) loadEntry(ctx context.Context, n *name, key string, legacy bool) *tls.Certificate {
	data, err := s.get(ctx, key)
	if err != nil && !isMiss(err) {
		if s.ctx.Err() == nil && !n.unread {
			n.unread = true
			s.emit(certmanager.CacheFailed, n.text, err)
		}
		return nil
	}
	n.unread = false
	if err != nil {
		return nil
	}
	cert, err := decodeCached(data)
	if err == nil {
		err = s.check(cert, n.text)
	}
	switch {
	case err == nil && !clock.Now().Before(endOfService(cert.Leaf)), errors.Is(err, certmanager.ErrExpired):
		return nil // or it would be put in service and taken out again until it ends
	case legacy:
		if err == nil || errors.Is(err, certmanager.ErrNotYetValid) {
			if s.issuer(cert) == nil {
				err = s.cas[0].issued(cert)
			}
		}
		if err == nil {
			return cert
		}
		if !n.foreign {
			n.foreign = true
			s.warn(n.text, fmt.Errorf("%s: %s is not used: %w", s.where(), key, err))
		}
		return nil
	case err == nil, errors.Is(err, certmanager.ErrNotYetValid):
		return cert
	}
	s.setAside(ctx, n.text, key, data, err)
	return nil
}

// save stores what is served from memory, and says so once if it cannot.
func (s *state) save(ctx context.Context, n *name) {
	s.mu.Lock()
	cert := n.cert
	s.mu.Unlock()
	if n.early != nil {
		cert = n.early
	}
	if cert == nil { // it ended before it could be stored
		n.unsaved.Store(false)
		return
	}
	err := s.store(ctx, n, n.ca, cert)
	n.unsaved.Store(err != nil)
	if err != nil {
		s.storageOK.Store(false)
	}
	if err != nil && !n.told {
		s.emit(certmanager.CacheFailed, n.text, err)
	}
	n.told = err != nil
}

// store writes a certificate to the cache, also when ctx has ended: orders are limited.
func (s *state) store(ctx context.Context, n *name, c *ca, cert *tls.Certificate) error {
	data, err := encodeCached(cert)
	if err != nil {
		return err
	}
	return s.put(context.WithoutCancel(ctx), c.certKey(n), data)
}
