package acme

import (
	"crypto"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
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

// check says whether a certificate can be served for a name now, and parses it.
func (s *state) check(cert *tls.Certificate, name string) error {
	var err error
	if len(cert.Certificate) == 0 {
		return fmt.Errorf("%w: there is none", certmanager.ErrInvalid)
	}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return fmt.Errorf("%w: %w", certmanager.ErrInvalid, err)
	}
	public, ok := cert.PrivateKey.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.Leaf.PublicKey) {
		return fmt.Errorf("%w: %w", certmanager.ErrInvalid, certmanager.ErrMismatch)
	}
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
