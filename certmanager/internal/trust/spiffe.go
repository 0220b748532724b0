package trust

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

// Domains are the CAs of each SPIFFE trust domain.
type Domains map[string]domain

type domain struct {
	pool *x509.CertPool
	sum  string // of the CAs
}

// NewDomains makes a pool for each domain, and one of all their CAs and those of plain. Without
// domains it returns nil and plain.
func NewDomains(cas map[string][]*x509.Certificate, plain *x509.CertPool) (Domains, *x509.CertPool) {
	if len(cas) == 0 {
		return nil, plain
	}
	domains := make(Domains, len(cas))
	for name, certs := range cas {
		domains[name] = domain{pool: Pool(nil, certs), sum: Sum(certs)}
	}
	return domains, Pool(plain, slices.Concat(slices.Collect(maps.Values(cas))...))
}

// Sum identifies a set of certificates, in any order.
func Sum(certs []*x509.Certificate) string {
	var sums []string
	for _, cert := range certs {
		sum := sha256.Sum256(cert.Raw)
		sums = append(sums, string(sum[:]))
	}
	slices.Sort(sums)
	return strings.Join(slices.Compact(sums), "")
}

// Sum identifies the domains and their CAs.
func (d Domains) Sum() string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d)) {
		fmt.Fprintf(&text, "%q %q\n", name, d[name].sum)
	}
	return text.String()
}

// Roots returns the CAs that a peer is verified with: those of its trust domain if it has a SPIFFE
// ID and there are domains, else plain. A CA of one domain must not vouch for members of another.
func (d Domains) Roots(leaf *x509.Certificate, server bool, plain *x509.CertPool) (roots *x509.CertPool, member bool, err error) {
	if len(d) == 0 {
		return plain, false, nil
	}
	name, err := domainOf(leaf)
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("%s: %w: %w", Describe(leaf), ErrUntrusted, err)
	case name != "":
		domain, known := d[name]
		if !known {
			return nil, false, fmt.Errorf("%s: %w: no CA of the trust domain %q is known", Describe(leaf), ErrUntrusted, name)
		}
		return domain.pool, true, nil
	case plain == nil && !server:
		return nil, false, fmt.Errorf("%s: %w: it has no SPIFFE ID, and there is no CA for others", Describe(leaf), ErrUntrusted)
	}
	return plain, false, nil
}

// domainOf returns the trust domain of a certificate's SPIFFE ID; empty if it has none. A second
// URI or a malformed ID is an error (SPIFFE X509-SVID, section 2; SPIFFE-ID, section 2).
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

// checkDomain follows SPIFFE-ID, section 2.1.
func checkDomain(domain string) error {
	if domain == "" || len(domain) > 255 || strings.Trim(domain, letters+digits+".-_") != "" {
		return errors.New(`it is not a trust domain, such as "example.test": lower-case letters, digits, ".", "-" and "_"`)
	}
	return nil
}

// checkSPIFFEID follows SPIFFE-ID, sections 2.2 and 2.3.
func checkSPIFFEID(id string) error {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok || len(id) > 2048 {
		return errors.New(`it is not a SPIFFE ID, such as "spiffe://example.test/web"`)
	}
	domain, path, hasPath := strings.Cut(rest, "/")
	if err := checkDomain(domain); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(path, "/") {
		if hasPath && (segment == "" || segment == "." || segment == ".." || strings.Trim(segment, letters+strings.ToUpper(letters)+digits+".-_") != "") {
			return errors.New(`its path has a segment that is empty, "." or "..", or a character other than letters, digits, ".", "-" and "_"`)
		}
	}
	return nil
}
