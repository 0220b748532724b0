package certmanager

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Rule decides whether a verified peer is authorized. The zero Rule authorizes every one. A rule
// that was made of nonsense, such as a DNS name with a colon or no name at all, authorizes nobody,
// and [New] and the setters of rules return an error for it.
type Rule struct {
	name  string
	check func(*Peer) error
	err   error // why the rule makes no sense; it authorizes nobody then
}

// NewRule returns a rule of one's own. The name stands for the rule in errors and events and tells
// rules apart: sessions of a rule with another name are not resumed. check runs inside handshakes,
// resumed ones too, for many at once, and returns why a peer is refused. It must not call the
// Manager, which may be waiting for it. If it comes to decide otherwise, open connections hear of
// that by [Manager.SetClientRule].
func NewRule(name string, check func(*Peer) error) Rule {
	if check == nil {
		return badRule(name, errors.New("its function is nil"))
	}
	return Rule{name: name, check: check}
}

// badRule is a rule that authorizes nobody.
func badRule(name string, err error) Rule {
	err = fmt.Errorf("rule %s: %w", name, err)
	return Rule{name: name, err: err, check: func(*Peer) error { return err }}
}

// String returns the rule's name, "any peer" for the zero Rule.
func (r Rule) String() string {
	if r.check == nil {
		return "any peer"
	}
	return r.name
}

// allows returns nil or an error that wraps ErrNotAuthorized and names rule and peer.
func (r Rule) allows(p *Peer) error {
	if r.check == nil {
		return nil
	}
	if err := r.check(p); err != nil {
		return fmt.Errorf("%w: rule %s refuses %s: %w", ErrNotAuthorized, r, p, err)
	}
	return nil
}

// DNSName authorizes peers whose certificate carries one of the DNS names. A pattern
// that begins with "*." stands for exactly one label.
func DNSName(patterns ...string) Rule {
	normal := make([]string, len(patterns))
	for i, pattern := range patterns {
		normal[i] = normalName(pattern)
	}
	return oneOf("DNS name", normal, checkPattern, func(p *Peer) []string { return p.Certificate.DNSNames }, matchesDNS)
}

func matchesDNS(pattern, name string) bool {
	name = normalName(name)
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		dot := strings.IndexByte(name, '.')
		return dot > 0 && name[dot:] == rest
	}
	return pattern == name
}

// checkPattern refuses what no certificate has as a DNS name.
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

// CommonName authorizes peers whose subject has one of the common names, exactly as they stand
// there.
func CommonName(names ...string) Rule {
	return oneOf("common name", names, notEmpty, func(p *Peer) []string {
		if name := p.Certificate.Subject.CommonName; name != "" {
			return []string{name}
		}
		return nil
	}, func(want, name string) bool { return want == name })
}

// OrganizationalUnit authorizes peers whose subject has one of the organizational units, exactly as
// they stand there.
func OrganizationalUnit(units ...string) Rule {
	return oneOf("organizational unit", units, notEmpty, func(p *Peer) []string { return p.Certificate.Subject.OrganizationalUnit },
		func(want, unit string) bool { return want == unit })
}

func notEmpty(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	return nil
}

// SPIFFEID authorizes peers with one of the SPIFFE IDs, such as
// "spiffe://example.test/web", as the one URI of their certificate.
func SPIFFEID(ids ...string) Rule {
	return oneOf("SPIFFE ID", ids, checkSPIFFEID, spiffeIDs, func(want, id string) bool { return want == id })
}

// TrustDomain authorizes every SPIFFE ID of the trust domains, such as "example.test".
func TrustDomain(domains ...string) Rule {
	return oneOf("SPIFFE trust domain", domains, checkTrustDomain, func(p *Peer) []string {
		if domain, err := domainOf(p.Certificate); err == nil && domain != "" {
			return []string{domain}
		}
		return nil
	}, func(want, domain string) bool { return want == domain })
}

// spiffeIDs returns the SPIFFE ID of a peer. A certificate with more than one URI has
// none, as the X.509-SVID standard says in section 2.
func spiffeIDs(p *Peer) []string {
	if domain, err := domainOf(p.Certificate); err == nil && domain != "" {
		return []string{p.Certificate.URIs[0].String()}
	}
	return nil
}

// checkTrustDomain follows SPIFFE-ID, section 2.1.
func checkTrustDomain(domain string) error {
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
	if err := checkTrustDomain(domain); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(path, "/") {
		if hasPath && (segment == "" || segment == "." || segment == ".." || strings.Trim(segment, letters+strings.ToUpper(letters)+digits+".-_") != "") {
			return errors.New(`its path has a segment that is empty, "." or "..", or a character other than letters, digits, ".", "-" and "_"`)
		}
	}
	return nil
}

// PublicKeyPin authorizes peers by their public key: each pin is the base64 of the
// SHA-256 of a leaf's SubjectPublicKeyInfo, as [PinOf] makes them and RFC 7469 does.
func PublicKeyPin(pins ...string) Rule {
	return oneOf("public key pin", pins, checkPin, func(p *Peer) []string { return []string{PinOf(p.Certificate)} },
		func(want, pin string) bool { return strings.TrimPrefix(want, "sha256/") == pin })
}

func checkPin(pin string) error {
	sum, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(pin, "sha256/"))
	if err != nil || len(sum) != sha256.Size {
		return errors.New("it is not the base64 of a SHA-256 sum, as PinOf returns it")
	}
	return nil
}

// PinOf returns the pin of a certificate's public key for [PublicKeyPin].
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// AllOf authorizes peers that every rule authorizes. It needs one rule at least that is not the
// zero Rule.
func AllOf(rules ...Rule) Rule {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool { return r.check == nil })
	return combine("all of", rules, func(p *Peer) error {
		for _, r := range rules {
			if err := r.check(p); err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
		}
		return nil
	})
}

// AnyOf authorizes peers that at least one rule authorizes. It needs one rule at least, and none
// may be the zero Rule.
func AnyOf(rules ...Rule) Rule {
	rules = slices.Clone(rules)
	return combine("any of", rules, func(p *Peer) error {
		var reasons []string
		for _, r := range rules {
			err := r.check(p)
			if err == nil {
				return nil
			}
			reasons = append(reasons, err.Error())
		}
		return fmt.Errorf("none holds: %s", strings.Join(reasons, "; "))
	})
}

// combine makes a rule of several. The zero Rule among them would authorize every peer unnoticed.
func combine(what string, rules []Rule, check func(*Peer) error) Rule {
	name := list(what, rules)
	if len(rules) == 0 {
		return badRule(name, errors.New("it has no rule"))
	}
	for i, r := range rules {
		switch {
		case r.err != nil:
			return badRule(name, r.err)
		case r.check == nil:
			return badRule(name, fmt.Errorf("its rule %d is the zero Rule, which authorizes every peer", i))
		}
	}
	return NewRule(name, check)
}

func list[T fmt.Stringer](what string, items []T) string {
	var names []string
	for _, item := range items {
		names = append(names, item.String())
	}
	return what + " (" + strings.Join(names, ", ") + ")"
}

// oneOf compares what a peer has with what is wanted and, where nothing matches, says
// which of the wanted comes nearest. sense refuses what can never match.
func oneOf(what string, wanted []string, sense func(want string) error, have func(*Peer) []string, match func(want, have string) bool) Rule {
	wanted = slices.Clone(wanted)
	name := fmt.Sprintf("%s %s", what, strings.Join(wanted, " or "))
	if len(wanted) == 0 {
		return badRule(name, errors.New("it names nobody"))
	}
	for _, want := range wanted {
		if err := sense(want); err != nil {
			return badRule(name, fmt.Errorf("%q: %w", want, err))
		}
	}
	return NewRule(name, func(p *Peer) error {
		names := have(p)
		for _, name := range names {
			if slices.ContainsFunc(wanted, func(w string) bool { return match(w, name) }) {
				return nil
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("its certificate carries no %s", what)
		}
		want, name := nearest(wanted, names[:min(len(names), 100)]) // a peer may have as many as it likes
		return fmt.Errorf("its %s is %.300s, the nearest match %s", what, name, want)
	})
}

// nearest returns the pair with the longest common beginning or end.
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
