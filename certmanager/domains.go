package certmanager

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// trustDomain is the CAs of a SPIFFE trust domain.
type trustDomain struct {
	pool *x509.CertPool
	sum  string // of the CAs, for the fingerprint
}

// newTrustDomains makes the pools of each domain, and one of all of them together with the CAs of
// plain. Without any domain they are nil and plain.
func newTrustDomains(cas map[string][]*x509.Certificate, plain *x509.CertPool) (map[string]trustDomain, *x509.CertPool) {
	if len(cas) == 0 {
		return nil, plain
	}
	all := x509.NewCertPool()
	if plain != nil {
		all = plain.Clone()
	}
	domains := make(map[string]trustDomain, len(cas))
	for name, certs := range cas {
		d := trustDomain{pool: x509.NewCertPool()}
		var sums []string
		for _, cert := range certs {
			d.pool.AddCert(cert)
			all.AddCert(cert)
			sum := sha256.Sum256(cert.Raw)
			sums = append(sums, string(sum[:]))
		}
		slices.Sort(sums)
		d.sum = strings.Join(slices.Compact(sums), "")
		domains[name] = d
	}
	return domains, all
}

// sumOf is the part of a fingerprint that the domains make up.
func sumOf(domains map[string]trustDomain) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(domains)) {
		fmt.Fprintf(&text, "%q %q\n", name, domains[name].sum)
	}
	return text.String()
}

// rootsFor gives the CAs that a peer is verified with: those of its trust domain if it has a SPIFFE
// ID and the source gives trust domains, else plain. A CA of one domain must not vouch for members
// of another.
func (t *trust) rootsFor(p *Peer, plain *x509.CertPool) (roots *x509.CertPool, member bool, err error) {
	if len(t.domains) == 0 {
		return plain, false, nil
	}
	name, err := domainOf(p.Certificate)
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("%s: %w: %w", p, ErrUntrusted, err)
	case name != "":
		d, known := t.domains[name]
		if !known {
			return nil, false, fmt.Errorf("%s: %w: no CA of the trust domain %q is known", p, ErrUntrusted, name)
		}
		return d.pool, true, nil
	case plain == nil && !p.Server:
		return nil, false, fmt.Errorf("%s: %w: it has no SPIFFE ID, and there is no CA for others", p, ErrUntrusted)
	}
	return plain, false, nil
}

// domainOf gives the trust domain of a certificate's SPIFFE ID; empty if it has none. An ID that
// stands beside another URI, or is malformed, is an error (SPIFFE X509-SVID, section 2; SPIFFE-ID,
// section 2).
func domainOf(cert *x509.Certificate) (string, error) {
	i := slices.IndexFunc(cert.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" })
	if i < 0 {
		return "", nil
	}
	if len(cert.URIs) > 1 {
		return "", errors.New("it has a SPIFFE ID and another URI")
	}
	u := cert.URIs[i]
	if err := checkSPIFFEID(u.String()); err != nil || u.Fragment != "" || u.Opaque != "" {
		return "", fmt.Errorf("its SPIFFE ID %.200q is malformed", u.Redacted())
	}
	return u.Host, nil
}
