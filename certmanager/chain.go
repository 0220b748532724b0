package certmanager

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/dn"
)

// comparison has what the chains of a candidate are compared with.
type comparison struct {
	*snapshot
	now      time.Time
	previous *snapshot               // in service
	served   map[*certificate]bool   // by previous
	before   map[string]*certificate // the certificates of served, by origin
	issuers  []*x509.Certificate     // intermediates of all chains, of the candidate or served before
	alone    map[string]bool         // names of the issuers of leaves without an intermediate that a warning has reported
}

func newComparison(s, previous *snapshot, now time.Time) *comparison {
	k := &comparison{snapshot: s, now: now, previous: previous, served: make(map[*certificate]bool), before: make(map[string]*certificate), alone: make(map[string]bool)}
	for _, c := range previous.certs {
		k.served[c], k.before[c.origin] = true, c
		if len(c.chain) == 1 {
			k.alone[string(c.tls.Leaf.RawIssuer)] = true
		}
	}
	for issuer := range issuersOf(slices.Concat(s.certs, previous.certs)) {
		if !trust.IsRoot(issuer) {
			k.issuers = append(k.issuers, issuer)
		}
	}
	return k
}

// check checks the dates and chains of the certificates that are not in service yet. A fault of one
// of several is a warning, so that the others are still put in service. It is an error if a
// certificate of the same origin is in service, or if no good one is left.
func (k *comparison) check() []error {
	var errs, late []error
	good := 0
	for _, c := range k.certs {
		if k.served[c] {
			// A certificate in service stays there with or without this candidate. That it has expired is no
			// reason to hold back a revocation or another renewal.
			good++
			continue
		}
		err := cmp.Or(c.checkDates(k.now), k.checkChain(c))
		switch {
		case err == nil:
			good++
		case c == k.in.update, k.before[c.origin] != nil, k.replaces(c):
			errs = append(errs, err)
		default:
			late = append(late, err)
		}
	}
	if good == 0 {
		errs, late = append(errs, late...), nil
	}
	k.doubts = append(k.doubts, late...)
	return some(errs, enough)
}

// replaces reports whether c replaces a certificate in service for one of its names.
func (k *comparison) replaces(c *certificate) bool {
	return slices.ContainsFunc(k.previous.certs, func(old *certificate) bool {
		return !slices.Contains(k.certs, old) && c.covers(old)
	})
}

// covers reports whether c is valid for a name of other.
func (c *certificate) covers(other *certificate) bool {
	return slices.ContainsFunc(namesOf(other.tls.Leaf), func(name string) bool {
		return slices.Contains(namesOf(c.tls.Leaf), name) || c.tls.Leaf.VerifyHostname(name) == nil
	})
}

// checkChain checks that a chain is complete. A chain that leads to none of RootCAs is not an error
// by itself: our certificate and those of our peers may come from different CAs, for example a
// public certificate and clients of a private CA. It is an error if there is evidence that the
// chain should lead there: an intermediate in another file, or the certificate in service before.
// Otherwise it is a warning.
func (k *comparison) checkChain(c *certificate) error {
	roots := k.policy.servers.cas
	if roots == nil {
		if !c.renewed {
			k.checkAlone(c)
			k.checkConstraints(c)
		}
		return nil
	}
	built, err := trust.Build(c.tls.Leaf, c.chain[1:], roots, k.now)
	switch {
	case err != nil:
		return c.wrap(err)
	case built != nil || c.renewed:
		return nil
	}
	old := k.before[c.origin]
	if whole, err := trust.Build(c.tls.Leaf, k.issuers, roots, k.now); err == nil && whole != nil {
		missing := slices.IndexFunc(whole, func(cert *x509.Certificate) bool { return !slices.ContainsFunc(c.chain, cert.Equal) })
		return c.wrap(fmt.Errorf("%w: its chain lacks the intermediate %s; append it, as the CA's \"full chain\" has it", ErrUntrusted, trust.Describe(whole[missing])))
	}
	switch {
	case k.led(old, roots):
		return c.wrap(fmt.Errorf("%w: its chain builds to none of the CAs in RootCAs, as the one in service does; add the missing intermediate or root", ErrUntrusted))
	case old == nil && c.server && !k.leadsToClients(c):
		k.doubt(c, "its chain builds to none of the CAs in RootCAs or ClientCAs; if it is of one of them, an intermediate is missing")
	}
	return nil
}

func (k *comparison) doubt(c *certificate, text string) {
	k.doubts = append(k.doubts, c.wrap(errors.New(text)))
}

// checkAlone warns about a leaf without its issuer if it leads to no known root.
func (k *comparison) checkAlone(c *certificate) {
	leaf := c.tls.Leaf
	if len(c.chain) > 1 || trust.IsRoot(leaf) || !c.server {
		return
	}
	if i := slices.IndexFunc(k.issuers, func(issuer *x509.Certificate) bool { return trust.Issued(issuer, leaf) }); i >= 0 {
		k.doubt(c, "its chain lacks its issuer, "+trust.Describe(k.issuers[i])+", which is in the chain of another certificate; append it, unless all peers have it")
		return
	}
	if !k.alone[string(leaf.RawIssuer)] && !k.leadsToClients(c) {
		k.alone[string(leaf.RawIssuer)] = true
		k.doubt(c, fmt.Sprintf("its issuer %q is not known: append it if it is an intermediate; ignore this if it is a root that clients trust", dn.String(leaf.Issuer)))
	}
}

// checkConstraints warns about a leaf that violates the constraints of its issuer, or has a
// critical extension unknown to crypto/x509: clients refuse it whatever roots they have.
func (k *comparison) checkConstraints(c *certificate) {
	roots := trust.Pool(nil, c.chain[min(1, len(c.chain)-1):])
	_, err := c.tls.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: k.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil && trust.CheckAlgorithm(c.tls.Leaf) == nil { // else that was reported
		k.doubt(c, "clients refuse its chain: "+err.Error())
	}
}

// leads reports whether the chain of a certificate leads to roots.
func (c *certificate) leads(roots *x509.CertPool, when time.Time) bool {
	built, err := trust.Build(c.tls.Leaf, c.chain[1:], roots, when)
	return err == nil && built != nil
}

// led reports whether roots are unchanged and c, or else every certificate in service that its
// source does not renew, leads to them.
func (k *comparison) led(c *certificate, roots *x509.CertPool) bool {
	if !roots.Equal(k.previous.policy.servers.cas) {
		return false
	}
	leads := func(c *certificate) bool {
		when := k.now
		if end := c.tls.Leaf.NotAfter; when.After(end) {
			when = end
		}
		return c.leads(roots, when)
	}
	lasting := slices.DeleteFunc(slices.Clone(k.previous.certs), func(c *certificate) bool { return c.renewed })
	return c != nil && leads(c) || len(lasting) > 0 && !slices.ContainsFunc(lasting, func(c *certificate) bool { return !leads(c) })
}

// leadsToClients reports whether the chain leads to the roots that clients are verified with.
func (k *comparison) leadsToClients(c *certificate) bool {
	cas := k.policy.clients.cas
	return cas != nil && c.leads(cas, k.now) // the system's roots do not count
}

// lost returns an error if a candidate has no certificate, for servers or at all, where there was
// one. A source may remove its renewed certificates when they expire.
func (k *comparison) lost() []error {
	switch {
	case !slices.ContainsFunc(k.previous.certs, func(c *certificate) bool { return !c.renewed }): // their source removes them when they expire
	case !k.previous.names.fallback.none() && k.names.fallback.none():
		return []error{fmt.Errorf("%w: none for servers is left of those in service; to stop serving, close the listener", ErrNoCertificate)}
	case len(k.previous.certs) > 0 && len(k.certs) == 0:
		return []error{fmt.Errorf("%w: none is left of those in service", ErrNoCertificate)}
	}
	return nil
}
