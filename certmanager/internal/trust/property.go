package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/ergotls/ergotls/internal/dn"
)

// Property is a property of a leaf that rules compare.
type Property struct {
	Name  string // for rules and errors
	of    func(leaf *x509.Certificate) []string
	check func(want string) error // refuses values that can never match
	match func(want, have string) bool
}

// The properties of a leaf. Those of DNS names are compared as NormalName returns them, with "*."
// for one label.
var (
	DNSName    = Property{"DNS name", func(leaf *x509.Certificate) []string { return leaf.DNSNames }, checkPattern, MatchesDNS}
	CommonName = Property{"common name", func(leaf *x509.Certificate) []string {
		return slices.DeleteFunc([]string{leaf.Subject.CommonName}, func(name string) bool { return name == "" })
	}, checkNotEmpty, equal}
	OrganizationalUnit = Property{"organizational unit", func(leaf *x509.Certificate) []string { return leaf.Subject.OrganizationalUnit }, checkNotEmpty, equal}
	SPIFFEID           = Property{"SPIFFE ID", func(leaf *x509.Certificate) []string {
		if domain, err := domainOf(leaf); err == nil && domain != "" {
			return []string{leaf.URIs[0].String()}
		}
		return nil
	}, checkSPIFFEID, equal}
	TrustDomain = Property{"SPIFFE trust domain", func(leaf *x509.Certificate) []string {
		domain, _ := domainOf(leaf)
		return slices.DeleteFunc([]string{domain}, func(name string) bool { return name == "" })
	}, checkDomain, equal}
	PublicKeyPin = Property{"public key pin", func(leaf *x509.Certificate) []string { return []string{PinOf(leaf)} }, checkPin,
		func(want, pin string) bool { return strings.TrimPrefix(want, "sha256/") == pin }}
)

func equal(want, have string) bool { return want == have }

// Check refuses values that no leaf can have.
func (p Property) Check(wanted []string) error {
	if len(wanted) == 0 {
		return errors.New("it names nobody")
	}
	for _, want := range wanted {
		if err := p.check(want); err != nil {
			return fmt.Errorf("%q: %w", want, err)
		}
	}
	return nil
}

// OneOf returns nil if the leaf has one of the wanted values, or an error that names the closest.
func (p Property) OneOf(wanted []string, leaf *x509.Certificate) error {
	names := p.of(leaf)
	for _, name := range names {
		if slices.ContainsFunc(wanted, func(w string) bool { return p.match(w, name) }) {
			return nil
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("its certificate carries no %s", p.Name)
	}
	want, name := nearest(wanted, names[:min(len(names), 100)]) // a peer may have any number
	return fmt.Errorf("its %s is %.300s, the nearest match %s", p.Name, dn.Printable(name), want)
}

// NormalName returns the form in which names are compared.
func NormalName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if ascii, err := idna.Lookup.ToASCII(name); err == nil {
		return ascii
	}
	return strings.ToLower(name) // wildcards and names with underscores are not IDNA
}

// MatchesDNS reports whether a DNS name matches a pattern, in which "*." stands for one label.
func MatchesDNS(pattern, name string) bool {
	name = NormalName(name)
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		dot := strings.IndexByte(name, '.')
		return dot > 0 && name[dot:] == rest
	}
	return pattern == name
}

// checkPattern refuses a pattern that matches no DNS name of a certificate.
func checkPattern(pattern string) error {
	name := strings.TrimPrefix(pattern, "*.")
	switch _, err := netip.ParseAddr(name); {
	case err == nil:
		return errors.New("it is an IP address, which no certificate has as a DNS name")
	case strings.Contains(name, "*"):
		return errors.New(`"*" stands for the whole first label only, as in "*.example.com"`)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, letters+strings.ToUpper(letters)+digits+"-_") != "" {
			return errors.New("it is not a DNS name; leave out the scheme, port and path")
		}
	}
	return nil
}

const (
	letters = "abcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
)

func checkNotEmpty(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	return nil
}

func checkPin(pin string) error {
	sum, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(pin, "sha256/"))
	if err != nil || len(sum) != sha256.Size {
		return errors.New("it is not the base64 of a SHA-256 sum, as PinOf returns it")
	}
	return nil
}

// PinOf returns the base64 of the SHA-256 of a certificate's public key.
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// nearest returns the pair with the longest common prefix or suffix.
func nearest(wanted, names []string) (want, name string) {
	want, name = "none", names[0]
	best := -1
	for _, w := range wanted {
		for _, n := range names {
			if s := shared(w, n); s > best {
				best, want, name = s, w, n
			}
		}
	}
	return want, name
}

func shared(a, b string) int {
	head, tail := 0, 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	for tail < min(len(a), len(b)) && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return max(head, tail)
}
