package certmanager

import (
	"fmt"
	"slices"
)

// newDoubts returns those of the doubts that the snapshot before did not have.
func (s *snapshot) newDoubts(previous *snapshot) []error {
	told := make(map[string]bool)
	if previous != nil {
		for _, doubt := range previous.doubts {
			told[doubt.Error()] = true
		}
	}
	return some(slices.DeleteFunc(slices.Clone(s.doubts), func(doubt error) bool { return told[doubt.Error()] }), 3*enough)
}

// regressions says in what the candidate is less than the snapshot before it. It is taken all the
// same, with a warning: whoever put the files there may know why.
func (s *snapshot) regressions(previous *snapshot) []error {
	if previous == nil || s.sameCertificates(previous) {
		return nil
	}
	found := append(s.lesserNames(previous), s.olderNameless(previous)...)
	plays := func(c *certificate) bool { return c.client }
	if slices.ContainsFunc(previous.certs, plays) && !slices.ContainsFunc(s.certs, plays) {
		found = append(found, fmt.Errorf("no certificate is left to show to servers that ask for one: the extended key usage of the new ones lacks TLS clients"))
	}
	return append(found, s.olderLists(previous)...)
}

// lesserNames looks for names that are no longer served, or by a certificate that was issued before
// the one whose place it takes. The first of either is enough to look at.
func (s *snapshot) lesserNames(previous *snapshot) []error {
	var found []error
	missing, older := 0, false
	for name, old := range previous.names.all() {
		old, now := old.first, s.names.serving(name).first
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
				name, describe(now.tls.Leaf), describe(old.tls.Leaf)))
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
				c.origin, describe(c.tls.Leaf), describe(old.tls.Leaf))}
		}
	}
	return nil
}

func (c *certificate) nameless() bool {
	return !c.server || len(c.tls.Leaf.DNSNames)+len(c.tls.Leaf.IPAddresses) == 0
}

// olderLists looks for revocation lists that were taken back: who was revoked is let in again.
func (s *snapshot) olderLists(previous *snapshot) []error {
	var found []error
	m := s.in.material
	for _, old := range previous.trust.crls.all() {
		all := s.trust.crls.of(old.issuer)
		i := slices.IndexFunc(all, func(l *revocationList) bool { return l.scope == old.scope })
		switch {
		case i >= 0 && all[i].list.ThisUpdate.Before(old.list.ThisUpdate):
			found = append(found, fmt.Errorf("the revocation list of %s was issued before the one that was in service", describe(old.issuer)))
		case i < 0 && slices.ContainsFunc(slices.Concat(m.clientCAs.certs, m.rootCAs.certs, m.crlIssuers), old.issuer.Equal):
			found = append(found, fmt.Errorf("the revocation list of %s is no longer there", describe(old.issuer)))
		}
	}
	return found
}
