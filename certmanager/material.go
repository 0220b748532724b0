package certmanager

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// part is a Material without Parts, and the values made from it.
type part struct {
	from         *Material
	certificates []*certificate
	err          error // why it cannot be used
}

// newPart checks the certificates, which is slow for many. It reuses a certificate of served, which
// is indexed by leaf, so that it is not rehearsed again.
func newPart(from *Material, served map[string]*certificate) *part {
	p := &part{from: from}
	for _, cert := range from.Certificates {
		var c *certificate
		if chain := cert.Certificate.Certificate; len(chain) > 0 {
			c = served[string(chain[0])]
		}
		if c == nil || c.origin != cert.Origin || c.renewed != cert.Renewed || !sameChain(c.tls, cert.Certificate) {
			if c, p.err = newCertificate(cert.Certificate, cert.Origin); p.err != nil {
				return p
			}
			c.renewed = cert.Renewed
		}
		p.certificates = append(p.certificates, c)
	}
	p.err = checkTicketKeys(from.TicketKeys)
	return p
}

// material is the result of a Load with its parts joined. It is immutable.
type material struct {
	parts []*part
	kept  bool  // the last part is from keeping
	err   error // why it cannot be put in service

	all          Material       // the parts joined, except for certificates and functions
	certificates []*certificate // the first is the default
	clientPool   *x509.CertPool // of the CAs; nil if there are none
	rootPool     *x509.CertPool
	funcs        []Func // GetCertificate
	challenges   []Func
	httpAnswers  []func(host, path string) (body string, ok bool)
	orders       []func() []OrderStatus
	late         bool // certificates may come later
}

// newMaterial makes a material from what a source returned while s was in service. It reuses parts
// with the same contents as a part in service or of the last candidate.
func newMaterial(from *Material, s *snapshot, last *material) *material {
	known, served := []*material{s.in.material, last}, make(map[string]*certificate)
	for _, c := range s.certs {
		served[string(c.chain[0].Raw)] = c
	}
	var parts []*part
	for i, part := range from.flat() {
		parts = append(parts, partOf(part, i, known, served))
	}
	return joined(parts)
}

func partOf(from *Material, i int, known []*material, served map[string]*certificate) *part {
	for _, m := range known {
		if m == nil || i >= len(m.parts) || !from.equal(m.parts[i].from) {
			continue
		}
		p := m.parts[i]
		if p.err != nil { // an intermediate that was not valid yet may be now
			if again := newPart(from, served); again.err == nil {
				return again
			}
		}
		return p
	}
	return newPart(from, served)
}

func (m *material) same(other *material) bool {
	return other != nil && slices.Equal(m.parts, other.parts)
}

// with returns the material with one part replaced.
func (m *material) with(i int, p *part) *material {
	parts := slices.Clone(m.parts)
	parts[i] = p
	next := joined(parts)
	next.kept = m.kept
	return next
}

// own returns the parts that the source returned.
func (m *material) own() []*part {
	if m.kept {
		return m.parts[:len(m.parts)-1]
	}
	return m.parts
}

func joined(parts []*part) *material {
	m := &material{parts: parts, all: Material{
		TrustDomains: make(map[string][]*x509.Certificate),
		ECHKeys:      []tls.EncryptedClientHelloKey{}, // crypto/tls fails with nil
	}}
	for _, p := range parts {
		m.err = cmp.Or(m.err, p.err, m.add(p))
	}
	m.clientPool, m.rootPool = newPool(m.all.ClientCAPool, m.all.ClientCAs), newPool(m.all.RootCAPool, m.all.RootCAs)
	return m
}

func (m *material) add(p *part) error {
	from, all := p.from, &m.all
	for name, pools := range map[string][2]*x509.CertPool{"ClientCAs": {from.ClientCAPool, all.ClientCAPool}, "RootCAs": {from.RootCAPool, all.RootCAPool}} {
		if pools[0] != nil && pools[1] != nil {
			return fmt.Errorf("%s: %w: two sources give a *x509.CertPool for the same bundle; pools cannot be merged, make one of them", name, ErrInvalid)
		}
	}
	all.ClientCAPool, all.RootCAPool = cmp.Or(all.ClientCAPool, from.ClientCAPool), cmp.Or(all.RootCAPool, from.RootCAPool)
	all.ClientCAs = append(all.ClientCAs, from.ClientCAs...)
	all.RootCAs = append(all.RootCAs, from.RootCAs...)
	for domain, cas := range from.TrustDomains {
		all.TrustDomains[domain] = slices.Concat(all.TrustDomains[domain], cas)
	}
	all.CRLs = append(all.CRLs, from.CRLs...)
	all.CRLIssuers = append(all.CRLIssuers, from.CRLIssuers...)
	all.ECHKeys = append(all.ECHKeys, from.ECHKeys...)
	all.TicketKeys = append(all.TicketKeys, from.TicketKeys...)
	m.certificates = append(m.certificates, p.certificates...)
	if from.GetCertificate != nil {
		m.funcs = append(m.funcs, from.GetCertificate)
	}
	if from.Challenge != nil {
		m.challenges = append(m.challenges, from.Challenge)
	}
	if from.HTTPChallenge != nil {
		m.httpAnswers = append(m.httpAnswers, from.HTTPChallenge)
	}
	if from.Orders != nil {
		m.orders = append(m.orders, from.Orders)
	}
	m.late = m.late || from.GetCertificate != nil || from.Orders != nil
	return nil
}

// issuers returns the CAs that may have signed revocation lists.
func (m *material) issuers() []*x509.Certificate {
	all := slices.Concat(m.all.CRLIssuers, m.all.ClientCAs, m.all.RootCAs)
	for _, c := range m.certificates {
		all = append(all, c.chain[1:]...)
	}
	return append(all, slices.Concat(slices.Collect(maps.Values(m.all.TrustDomains))...)...)
}

// newPool returns a pool of CAs, or nil, which crypto/tls takes for the system's roots, if there
// are none. It adds to a clone of base, because a pool cannot be read.
func newPool(base *x509.CertPool, certs []*x509.Certificate) *x509.CertPool {
	if base == nil && len(certs) == 0 {
		return nil
	}
	return trust.Pool(base, certs)
}

// replaces reports whether m has a certificate, other than those served, for a name of other.
func (m *material) replaces(other *certificate, served []*certificate) bool {
	return slices.ContainsFunc(m.certificates, func(c *certificate) bool {
		return !slices.Contains(served, c) && c.covers(other)
	})
}

// usable returns m with the parts of other, which is in service, in place of those with an error; m
// may be nil.
func (m *material) usable(other *material) *material {
	switch parts := other.own(); {
	case m == nil:
		return other
	case m.err == nil || len(parts) != len(m.parts):
		return m
	default:
		parts = slices.Clone(parts)
		for i, p := range m.parts {
			if p.err == nil {
				parts[i] = p
			}
		}
		return joined(parts)
	}
}

// lacks reports whether m lacks something of other: a CA, a revocation list or its issuer, a name,
// an intermediate of a chain. Certificates that a source renews do not count.
func (m *material) lacks(other *material) bool { return len(m.missing(other)) > 0 }

// missing returns the part of the inventory of other that m lacks.
func (m *material) missing(other *material) map[string]func(*Material) {
	has, missing := m.inventory(true), other.inventory(false)
	maps.DeleteFunc(missing, func(key string, _ func(*Material)) bool {
		_, found := has[key]
		return found
	})
	return missing
}

// keeping returns m with the CAs and lists of other that it lacks, or nil if m adds nothing to
// other or lacks more than those.
func (m *material) keeping(other *material) *material {
	if !other.lacks(m) {
		return nil
	}
	kept := &Material{TrustDomains: make(map[string][]*x509.Certificate)}
	for _, add := range m.missing(other) {
		if add == nil {
			return nil
		}
		add(kept)
	}
	return m.and(kept)
}

// and returns m with a last part of what it lacks.
func (m *material) and(kept *Material) *material {
	next := joined(append(slices.Clone(m.own()), &part{from: kept}))
	next.kept = true
	return next
}

// keepingOnly returns m, which keeping made, without what its other parts have by now, and without
// what candidate lacks too. A part of candidate that cannot be used counts as well.
func (m *material) keepingOnly(candidate *material) *material {
	own, extra := &material{parts: m.own()}, &material{parts: m.parts[len(m.parts)-1:]}
	owned, has := own.inventory(true), candidate.inventory(true)
	kept, same, some := &Material{TrustDomains: make(map[string][]*x509.Certificate)}, true, false
	for key, add := range extra.inventory(false) {
		_, here := owned[key]
		_, there := has[key]
		switch {
		case add == nil: // not from keeping
		case there && !here:
			add(kept)
			some = true
		default:
			same = false
		}
	}
	switch {
	case same:
		return m
	case some:
		return m.and(kept)
	}
	return joined(m.own())
}

// inventory has a key for each item of a material, with a function that adds the item to another
// Material, or nil if it can't be added alone.
func (m *material) inventory(renewed bool) map[string]func(*Material) {
	has := make(map[string]func(*Material))
	for _, p := range m.parts {
		from := p.from
		for _, c := range from.ClientCAs {
			has["client CA "+string(c.Raw)] = func(m *Material) { m.ClientCAs = append(m.ClientCAs, c) }
		}
		for _, c := range from.RootCAs {
			has["root CA "+string(c.Raw)] = func(m *Material) { m.RootCAs = append(m.RootCAs, c) }
		}
		for domain, all := range from.TrustDomains {
			for _, c := range all {
				has[domain+" CA "+string(c.Raw)] = func(m *Material) { m.TrustDomains[domain] = append(m.TrustDomains[domain], c) }
			}
		}
		for _, c := range from.CRLIssuers {
			has["list issuer "+string(c.Raw)] = func(m *Material) { m.CRLIssuers = append(m.CRLIssuers, c) }
		}
		for _, list := range from.CRLs {
			has["list of "+trust.PartName(list)] = func(m *Material) { m.CRLs = append(m.CRLs, list) }
		}
		// The contents of a pool cannot be read: a different pool counts as a loss.
		has[fmt.Sprintf("client CAs %p", from.ClientCAPool)] = nil
		has[fmt.Sprintf("root CAs %p", from.RootCAPool)] = nil
		for _, key := range from.ECHKeys {
			has["ECH config "+string(key.Config)] = nil
		}
		for _, c := range p.certificates {
			if c.renewed && !renewed {
				continue
			}
			for i := range c.chain[1:] {
				has[fmt.Sprintf("intermediate %d of %s", i, c.origin)] = nil
			}
			for _, name := range c.chain[0].DNSNames {
				has["name "+name] = nil
			}
		}
	}
	return has
}
