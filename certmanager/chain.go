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

// comparison is what the chains of a candidate are compared with.
type comparison struct {
	*snapshot
	now      time.Time
	previous *snapshot               // in service
	served   map[*certificate]bool   // by previous
	before   map[string]*certificate // the same by their origin
	issuers  []*x509.Certificate     // intermediates of all chains, served now or before
	alone    map[string]bool         // the issuers, by name, of leaves that stand alone and that a warning told of
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

// check looks at the dates and chains of the certificates that are not in service yet. What is
// wrong with one of several is a warning: it must not keep the others from service. It is an error
// where one of the same origin is in service, or where none is left that is good.
func (k *comparison) check() []error {
	var errs, late []error
	good := 0
	for _, c := range k.certs {
		if k.served[c] {
			// What is in service stays so with this candidate or without it. If it ended meanwhile,
			// that is no reason to hold a revocation or another renewal back.
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

// replaces says whether a certificate takes the place of one in service, for a name of it.
func (k *comparison) replaces(c *certificate) bool {
	return slices.ContainsFunc(k.previous.certs, func(old *certificate) bool {
		return !slices.Contains(k.certs, old) && c.covers(old)
	})
}

// covers says whether a certificate is good for a name of another.
func (c *certificate) covers(other *certificate) bool {
	return slices.ContainsFunc(namesOf(other.tls.Leaf), func(name string) bool {
		return slices.Contains(namesOf(c.tls.Leaf), name) || c.tls.Leaf.VerifyHostname(name) == nil
	})
}

// checkChain looks whether a chain is complete. That it leads to none of RootCAs is not an error by
// itself: the CA that issued our certificate may be another than the one that issues our peers', as
// where a public certificate meets clients of a private CA. It is an error where something says
// that the chain should lead there: an intermediate that stands in another file, or what was in
// service before. Where nothing says so it is a warning.
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

// checkAlone warns of a leaf without its issuer where no root is known that it could lead to.
func (k *comparison) checkAlone(c *certificate) {
	leaf := c.tls.Leaf
	if len(c.chain) > 1 || trust.IsRoot(leaf) || !c.server {
		return
	}
	if i := slices.IndexFunc(k.issuers, func(issuer *x509.Certificate) bool { return trust.Issued(issuer, leaf) }); i >= 0 {
		k.doubt(c, "its chain lacks its issuer, "+trust.Describe(k.issuers[i])+", which stands behind another certificate; append it, unless all peers have it")
		return
	}
	if !k.alone[string(leaf.RawIssuer)] && !k.leadsToClients(c) {
		k.alone[string(leaf.RawIssuer)] = true
		k.doubt(c, fmt.Sprintf("nothing is known of its issuer %q; if that is an intermediate and no root of the peers, append it", dn.String(leaf.Issuer)))
	}
}

// checkConstraints warns of a leaf that its own issuer may not have issued, or that has a critical
// extension that crypto/x509 does not know: its clients refuse it whatever roots they have.
func (k *comparison) checkConstraints(c *certificate) {
	roots := trust.Pool(nil, c.chain[min(1, len(c.chain)-1):])
	_, err := c.tls.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: k.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil && trust.CheckAlgorithm(c.tls.Leaf) == nil { // else that was said
		k.doubt(c, "clients refuse its chain: "+err.Error())
	}
}

// leads says whether the chain of a certificate builds to roots.
func (c *certificate) leads(roots *x509.CertPool, when time.Time) bool {
	built, err := trust.Build(c.tls.Leaf, c.chain[1:], roots, when)
	return err == nil && built != nil
}

// led says whether a certificate in service leads to roots that are still the same, or all do where
// it is nil.
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

// leadsToClients says whether the chain builds to the roots that clients are verified with.
func (k *comparison) leadsToClients(c *certificate) bool {
	cas := k.policy.clients.cas
	return cas != nil && c.leads(cas, k.now) // and not to the system's
}

// lost says that no certificate is left of those in service, for servers or at all. Their source
// may take them away when they end.
func (k *comparison) lost() []error {
	switch {
	case !slices.ContainsFunc(k.previous.certs, func(c *certificate) bool { return !c.renewed }): // their source takes them away when they end
	case !k.previous.names.fallback.none() && k.names.fallback.none():
		return []error{fmt.Errorf("%w: none for servers is left of those in service; a server that is to end ends its listener", ErrNoCertificate)}
	case len(k.previous.certs) > 0 && len(k.certs) == 0:
		return []error{fmt.Errorf("%w: none is left of those in service", ErrNoCertificate)}
	}
	return nil
}
