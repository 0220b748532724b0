package certmanager

import (
	"fmt"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// warnings returns what is to be said of the snapshot when it takes the place of another one.
func (s *snapshot) warnings(previous *snapshot) (all []Event) {
	for _, warning := range unreported(s.policy.crls.Warnings, previous.policy.crls.Warnings) {
		all = append(all, Event{Kind: Warning, Reason: "source", Generation: s.generation, Err: warning})
	}
	for _, doubt := range append(unreported(s.doubts, previous.doubts), s.regressions(previous)...) {
		all = append(all, Event{Kind: Warning, Reason: "regressed", Generation: s.generation, Err: doubt})
	}
	return all
}

// unreported returns the warnings that were not given before, each once.
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

// regressions says in what the candidate is less than the snapshot before it. It is taken all the
// same, with a warning: whoever put the files there may know why.
func (s *snapshot) regressions(previous *snapshot) []error {
	if s.sameCertificates(previous) {
		return nil
	}
	found := append(s.lesserNames(previous), s.olderNameless(previous)...)
	plays := func(c *certificate) bool { return c.client }
	if slices.ContainsFunc(previous.certs, plays) && !slices.ContainsFunc(s.certs, plays) {
		found = append(found, fmt.Errorf("no certificate is left to show to servers that ask for one: the extended key usage of the new ones lacks TLS clients"))
	}
	m := s.in.material.all
	return append(found, s.policy.crls.Regressions(previous.policy.crls, slices.Concat(m.ClientCAs, m.RootCAs, m.CRLIssuers))...)
}

// lesserNames looks for names that are no longer served, or by a certificate that was issued before
// the one whose place it takes. The first of either is enough to look at.
func (s *snapshot) lesserNames(previous *snapshot) []error {
	var found []error
	missing, older := 0, false
	for name, old := range previous.names.all {
		old, now := old.first, s.names.lookup(name).first
		switch {
		case now == nil:
			missing++
			if missing == 1 {
				found = append(found, fmt.Errorf("the name %s is no longer served", name))
			}
		case older || now.owner && !old.owner: // what stood in for it may be younger
		case now.tls.Leaf.NotBefore.Before(old.tls.Leaf.NotBefore):
			older = true
			found = append(found, fmt.Errorf("for %s the certificate %s was issued before the one that was in service, %s",
				name, trust.Describe(now.tls.Leaf), trust.Describe(old.tls.Leaf)))
		}
	}
	if missing > 1 {
		found = append(found, fmt.Errorf("%d names are no longer served", missing))
	}
	return found
}

// olderNameless does the same for certificates that no client asks for by a name, such as one with
// a SPIFFE ID: by where they come from.
func (s *snapshot) olderNameless(previous *snapshot) []error {
	before := make(map[string]*certificate)
	for _, c := range previous.certs {
		if c.nameless() {
			before[c.origin] = c
		}
	}
	for _, c := range s.certs {
		if old := before[c.origin]; old != nil && c.tls.Leaf.NotBefore.Before(old.tls.Leaf.NotBefore) {
			return []error{fmt.Errorf("%s: the certificate %s was issued before the one that was in service, %s",
				c.origin, trust.Describe(c.tls.Leaf), trust.Describe(old.tls.Leaf))}
		}
	}
	return nil
}

func (c *certificate) nameless() bool {
	return !c.server || len(c.tls.Leaf.DNSNames)+len(c.tls.Leaf.IPAddresses) == 0
}
