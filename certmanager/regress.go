package certmanager

import (
	"fmt"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// unreported returns the warnings that are not in before, each once.
func unreported(warnings, before []error) []error {
	told := make(map[string]bool)
	for _, warning := range before {
		told[warning.Error()] = true
	}
	var all []error
	for _, warning := range warnings {
		if text := warning.Error(); !told[text] {
			told[text] = true
			all = append(all, warning)
		}
	}
	return some(all, 3*enough)
}

// regressions returns how the candidate is worse than the snapshot before it. These are only
// warnings, because the change may be intended.
func (k *comparison) regressions() []error {
	found := append(k.lesserNames(), k.olderNameless()...)
	plays := func(c *certificate) bool { return c.client }
	if slices.ContainsFunc(k.previous.certs, plays) && !slices.ContainsFunc(k.certs, plays) {
		found = append(found, fmt.Errorf("no certificate is left to show to servers that ask for one: the extended key usage of the new ones lacks TLS clients"))
	}
	return append(found, k.policy.crls.Regressions(k.previous.policy.crls, k.in.material.issuers())...)
}

// lesserNames finds names that are no longer served, and one served by a certificate older than the
// one that it replaces.
func (k *comparison) lesserNames() []error {
	var found []error
	var gone []string
	older := false
	for name, old := range k.previous.names.all {
		old, now := old.first, k.names.lookup(name).first
		switch {
		case now == nil:
			gone = append(gone, name)
		case older || now.renewed && !old.renewed: // a temporary substitute may be newer
		case now.issuedBefore(old):
			older = true
			found = append(found, fmt.Errorf("for %s the certificate %s was issued before the one that was in service, %s",
				name, trust.Describe(now.tls.Leaf), trust.Describe(old.tls.Leaf)))
		}
	}
	if len(gone) > 0 {
		found = append(found, fmt.Errorf("no longer served: %s", few(gone)))
	}
	return found
}

// olderNameless does the same for certificates without DNS names, such as those with a SPIFFE ID.
// It compares them by origin.
func (k *comparison) olderNameless() []error {
	for _, c := range k.certs {
		if old := k.before[c.origin]; old != nil && old.nameless() && c.issuedBefore(old) {
			return []error{fmt.Errorf("%s: the certificate %s was issued before the one that was in service, %s",
				c.origin, trust.Describe(c.tls.Leaf), trust.Describe(old.tls.Leaf))}
		}
	}
	return nil
}

func (c *certificate) issuedBefore(other *certificate) bool {
	return c.tls.Leaf.NotBefore.Before(other.tls.Leaf.NotBefore)
}

func (c *certificate) nameless() bool {
	return !c.server || len(c.tls.Leaf.DNSNames)+len(c.tls.Leaf.IPAddresses) == 0
}
