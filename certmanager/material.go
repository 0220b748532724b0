package certmanager

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
)

// part is one Material without parts, and what is made of it.
type part struct {
	from         *Material
	ready        bool
	err          error // why nothing can be made of it
	certificates []*certificate
}

// prepare checks the certificates, which is slow for many. One that is in service is taken over, so
// that it is not rehearsed again.
func (p *part) prepare(known map[string]*certificate) error {
	if p.ready {
		return p.err
	}
	p.ready = true
	for _, from := range p.from.Certificates {
		c := known[from.key()]
		if c == nil || c.origin != from.Origin || c.owner != from.Renewed || !sameChain(c.tls, from.Certificate) {
			if c, p.err = newCertificate(from.Certificate, from.Origin); p.err != nil {
				return p.err
			}
			c.owner = from.Renewed
		}
		p.certificates = append(p.certificates, c)
	}
	p.err = checkTicketKeys(p.from.TicketKeys)
	return p.err
}

// key finds a certificate among those in service.
func (c Certificate) key() string {
	if len(c.Certificate.Certificate) == 0 {
		return ""
	}
	return string(c.Certificate.Certificate[0])
}

// material is what a source gave, joined. It is immutable once it is in a snapshot.
type material struct {
	parts  []*part
	joined bool // what follows is filled in

	all          Material       // the parts in one, but for certificates and functions
	certificates []*certificate // the first is the default
	clientPool   *x509.CertPool // of the CAs; nil if there are none
	rootPool     *x509.CertPool
	funcs        []Func // GetCertificate
	challenges   []Func
	httpAnswers  []func(host, path string) (body string, ok bool)
	orders       []func() []OrderStatus
	late         bool // that there is no certificate yet is no mistake
}

// newMaterial makes one of the parts of what a source returned. Parts whose contents are those of a
// known material's are taken over from it.
func newMaterial(from *Material, known ...*material) *material {
	m := &material{}
	for i, part := range from.flat() {
		m.parts = append(m.parts, partOf(part, i, known))
	}
	return m
}

func partOf(from *Material, i int, known []*material) *part {
	for _, m := range known {
		if m != nil && i < len(m.parts) && from.equal(m.parts[i].from) {
			return m.parts[i]
		}
	}
	return &part{from: from}
}

func (m *material) same(other *material) bool {
	return other != nil && slices.Equal(m.parts, other.parts)
}

// with returns the material with one part replaced.
func (m *material) with(i int, p *part) *material {
	parts := slices.Clone(m.parts)
	parts[i] = p
	return &material{parts: parts}
}

// join prepares the parts and fills in the rest. It is called before the material is in a snapshot.
func (m *material) join(served []*certificate) error {
	if m.joined {
		return nil
	}
	known := make(map[string]*certificate, len(served))
	for _, c := range served {
		known[string(c.chain[0].Raw)] = c
	}
	joined := material{joined: true, parts: m.parts, all: Material{TrustDomains: make(map[string][]*x509.Certificate)}}
	for _, p := range m.parts {
		if err := p.prepare(known); err != nil {
			return err
		}
		if err := joined.add(p); err != nil {
			return err
		}
	}
	all := &joined.all
	joined.clientPool, joined.rootPool = newPool(all.ClientCAPool, all.ClientCAs), newPool(all.RootCAPool, all.RootCAs)
	*m = joined
	return nil
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

// issuers returns who may have signed revocation lists.
func (m *material) issuers() []*x509.Certificate {
	all := slices.Concat(m.all.CRLIssuers, m.all.ClientCAs, m.all.RootCAs)
	for _, c := range m.certificates {
		all = append(all, c.chain[1:]...)
	}
	for _, cas := range m.all.TrustDomains {
		all = append(all, cas...)
	}
	return all
}

// newPool returns a pool of CAs, nil if none was given, which crypto/tls takes for the system's
// roots. A pool of a program cannot be taken apart.
func newPool(base *x509.CertPool, certs []*x509.Certificate) *x509.CertPool {
	if base == nil && len(certs) == 0 {
		return nil
	}
	pool := x509.NewCertPool()
	if base != nil {
		pool = base.Clone()
	}
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// replaces says whether there is a certificate for a name of another one, besides those that are
// served.
func (m *material) replaces(other *certificate, served []*certificate) bool {
	return slices.ContainsFunc(m.certificates, func(c *certificate) bool {
		return !slices.Contains(served, c) && c.covers(other)
	})
}
