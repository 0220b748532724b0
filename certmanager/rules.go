package certmanager

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// A Rule decides whether a verified peer is authorized. The zero Rule authorizes every peer. A rule
// made with invalid arguments, such as a DNS name with a colon or no name at all, authorizes none;
// New and the setters of rules return an error for it.
type Rule struct {
	name  string
	check func(*Peer) error
	err   error // why the rule is invalid; it then authorizes no peer
}

// NewRule returns a rule that calls check. The name identifies the rule in errors and events; a
// session from a rule with another name is not resumed. check is called in all handshakes,
// including resumed ones, from many goroutines, and returns an error to refuse the peer. It must
// not call the Manager, which may be waiting for it. If its decisions change, call
// [Manager.SetClientRule] to verify open connections again.
func NewRule(name string, check func(*Peer) error) Rule {
	if check == nil {
		return badRule(name, errors.New("its function is nil"))
	}
	return Rule{name: name, check: func(p *Peer) (err error) {
		defer func() {
			// The Manager's goroutines call rules too: a panic would end the program.
			if v := recover(); v != nil {
				err = fmt.Errorf("it panicked: %v", v)
			}
		}()
		return check(p)
	}}
}

// badRule returns a rule that authorizes no peer.
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

// DNSName authorizes peers whose certificate has one of the DNS names. A leading "*." in a pattern
// matches exactly one label.
func DNSName(patterns ...string) Rule {
	normal := make([]string, len(patterns))
	for i, pattern := range patterns {
		normal[i] = trust.NormalName(pattern)
	}
	return oneOf(trust.DNSName, normal)
}

// CommonName authorizes peers whose subject has one of the common names, compared exactly.
func CommonName(names ...string) Rule { return oneOf(trust.CommonName, names) }

// OrganizationalUnit authorizes peers whose subject has one of the organizational units, compared
// exactly.
func OrganizationalUnit(units ...string) Rule { return oneOf(trust.OrganizationalUnit, units) }

// SPIFFEID authorizes peers whose certificate has one of the SPIFFE IDs, such as
// "spiffe://example.test/web", as its only URI.
func SPIFFEID(ids ...string) Rule { return oneOf(trust.SPIFFEID, ids) }

// TrustDomain authorizes every SPIFFE ID of the trust domains, such as "example.test".
func TrustDomain(domains ...string) Rule { return oneOf(trust.TrustDomain, domains) }

// PublicKeyPin authorizes peers by their public key: each pin is the base64 of the SHA-256 of a
// leaf's SubjectPublicKeyInfo, as in RFC 7469. [PinOf] returns the pin of a certificate.
func PublicKeyPin(pins ...string) Rule { return oneOf(trust.PublicKeyPin, pins) }

// oneOf returns a rule that authorizes peers with one of the values of a property.
func oneOf(property trust.Property, wanted []string) Rule {
	wanted = slices.Clone(wanted)
	name := fmt.Sprintf("%s %s", property.Name, strings.Join(wanted, " or "))
	if err := property.Check(wanted); err != nil {
		return badRule(name, err)
	}
	return NewRule(name, func(p *Peer) error { return property.OneOf(wanted, p.Certificate) })
}

// PinOf returns the pin of a certificate's public key for [PublicKeyPin].
func PinOf(cert *x509.Certificate) string { return trust.PinOf(cert) }

// AllOf authorizes peers that every rule authorizes. At least one must not be the zero Rule.
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

// AnyOf authorizes peers that at least one rule authorizes. It needs at least one rule, and none
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

// combine makes one rule of several. It refuses a zero Rule, which would silently authorize every
// peer.
func combine(what string, rules []Rule, check func(*Peer) error) Rule {
	var names []string
	for _, r := range rules {
		names = append(names, r.String())
	}
	name := fmt.Sprintf("%s (%s)", what, strings.Join(names, ", "))
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
