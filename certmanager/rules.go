package certmanager

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A Rule decides whether a verified peer is authorized. The zero Rule authorizes
// every one.
type Rule struct {
	name  string
	check func(*Peer) error
}

// NewRule returns a rule of one's own. The name stands for the rule in errors and
// events and tells rules apart: sessions of a rule with another name are not resumed.
// check runs inside handshakes, resumed ones too, for many at once, and returns why a peer is refused. It must not
// call the Manager, which may be waiting for it. If it comes to decide otherwise, open connections hear of that by
// [Manager.SetClientRule].
func NewRule(name string, check func(*Peer) error) Rule {
	return Rule{name: name, check: check}
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
	return oneOf("DNS name", normal, func(p *Peer) []string { return p.Certificate.DNSNames }, matchesDNS)
}

func matchesDNS(pattern, name string) bool {
	name = normalName(name)
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		dot := strings.IndexByte(name, '.')
		return dot > 0 && name[dot:] == rest
	}
	return pattern == name
}

// SPIFFEID authorizes peers with one of the SPIFFE IDs, such as
// "spiffe://example.test/web", as the one URI of their certificate.
func SPIFFEID(ids ...string) Rule {
	return oneOf("SPIFFE ID", ids, spiffeIDs, func(want, id string) bool { return want == id })
}

// TrustDomain authorizes every SPIFFE ID of the trust domains, such as "example.test".
func TrustDomain(domains ...string) Rule {
	return oneOf("SPIFFE trust domain", domains, func(p *Peer) []string {
		var names []string
		for _, id := range spiffeIDs(p) {
			if u, err := url.Parse(id); err == nil {
				names = append(names, u.Host)
			}
		}
		return names
	}, func(want, domain string) bool { return strings.EqualFold(want, domain) })
}

// spiffeIDs returns the SPIFFE ID of a peer. A certificate with more than one URI has
// none, as the X.509-SVID standard says in section 2.
func spiffeIDs(p *Peer) []string {
	if uris := p.Certificate.URIs; len(uris) == 1 && uris[0].Scheme == "spiffe" {
		return []string{uris[0].String()}
	}
	return nil
}

// PublicKeyPin authorizes peers by their public key: each pin is the base64 of the
// SHA-256 of a leaf's SubjectPublicKeyInfo, as [PinOf] makes them and RFC 7469 does.
func PublicKeyPin(pins ...string) Rule {
	return oneOf("public key pin", pins, func(p *Peer) []string { return []string{PinOf(p.Certificate)} },
		func(want, pin string) bool { return strings.TrimPrefix(want, "sha256/") == pin })
}

// PinOf returns the pin of a certificate's public key for [PublicKeyPin].
func PinOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// AllOf authorizes peers that every rule authorizes.
func AllOf(rules ...Rule) Rule {
	return NewRule(list("all of", rules), func(p *Peer) error {
		for _, r := range rules {
			if r.check == nil {
				continue
			}
			if err := r.check(p); err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
		}
		return nil
	})
}

// AnyOf authorizes peers that at least one rule authorizes; without rules it is
// nobody.
func AnyOf(rules ...Rule) Rule {
	return NewRule(list("any of", rules), func(p *Peer) error {
		var reasons []string
		for _, r := range rules {
			if r.check == nil {
				return nil
			}
			err := r.check(p)
			if err == nil {
				return nil
			}
			reasons = append(reasons, err.Error())
		}
		return fmt.Errorf("none holds: %s", strings.Join(reasons, "; "))
	})
}

func list[T fmt.Stringer](what string, items []T) string {
	var names []string
	for _, item := range items {
		names = append(names, item.String())
	}
	return what + " (" + strings.Join(names, ", ") + ")"
}

// oneOf compares what a peer has with what is wanted and, where nothing matches, says
// which of the wanted comes nearest.
func oneOf(what string, wanted []string, have func(*Peer) []string, match func(want, have string) bool) Rule {
	wanted = slices.Clone(wanted)
	return NewRule(fmt.Sprintf("%s %s", what, strings.Join(wanted, " or ")), func(p *Peer) error {
		names := have(p)
		for _, name := range names {
			if slices.ContainsFunc(wanted, func(w string) bool { return match(w, name) }) {
				return nil
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("its certificate carries no %s", what)
		}
		want, name := nearest(wanted, names)
		return fmt.Errorf("its %s is %s, the nearest match %s", what, name, want)
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
