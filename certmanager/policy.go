package certmanager

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// policy is the part of a snapshot that decides about peers. It is immutable.
type policy struct {
	clientAuth tls.ClientAuthType
	clients    side
	servers    side
	offered    *x509.CertPool // CAs of clients and of domains, with which crypto/tls verifies clients before judge does
	unnamed    bool           // offered has too many CAs to name in a CertificateRequest
	crls       *trust.Lists
	serverName string

	// reportOnly accepts, but reports, peers that rules and revocation lists refuse.
	reportOnly bool

	// fingerprint identifies a policy; tickets contain it. If everything is known by its bytes, it is
	// the same on every machine with the same files.
	fingerprint [sha256.Size]byte

	from *material // the material of crls
}

// newPolicy makes the policy of a candidate that follows previous.
func newPolicy(in *inputs, o *Options, previous *policy) (*policy, error) {
	m := in.material
	if err := in.clientRule.err; err != nil {
		return nil, fmt.Errorf("ClientRule: %w: %w", ErrInvalid, err)
	}
	if err := in.serverRule.err; err != nil {
		return nil, fmt.Errorf("ServerRule: %w: %w", ErrInvalid, err)
	}
	t := &policy{
		clientAuth: in.clientAuth, serverName: in.serverName,
		clients:    side{cas: m.clientPool, base: m.all.ClientCAPool, known: m.all.ClientCAs, rule: in.clientRule},
		servers:    side{cas: m.rootPool, base: m.all.RootCAPool, known: m.all.RootCAs, rule: in.serverRule},
		reportOnly: o.ReportOnly,
		from:       m, crls: previous.crls,
	}
	t.clients.identify(in.clientCAs, previous.clients)
	t.servers.identify(in.rootCAs, previous.servers)
	domains, offered := trust.NewDomains(m.all.TrustDomains, t.clients.cas)
	if t.offered = t.clients.cas; in.clientCAs == nil { // CAs set by the program replace all those of the source
		t.clients.domains, t.offered = domains, offered
	}
	if in.rootCAs == nil {
		t.servers.domains = domains
	}
	if err := t.decideClientAuth(in, previous); err != nil {
		return nil, err
	}
	t.unnamed = t.offered != nil && sizeOfNames(t.offered) > maxAuthorities
	if now := clock.Now(); previous.from != m || previous.crls.Begun(now) { // the lists of previous are verified already
		var err error
		if t.crls, err = trust.NewLists(m.all.CRLs, m.issuers(), o.RequireFreshCRLs, now, previous.crls); err != nil {
			return nil, err
		}
	}
	t.fingerprint = t.sum()
	return t, nil
}

// decideClientAuth sets what is asked of clients, or returns an error if the candidate would accept
// clients that it must not.
func (t *policy) decideClientAuth(in *inputs, previous *policy) error {
	if !in.clientAuthSet && t.clientAuth == tls.NoClientCert && t.offered != nil {
		t.clientAuth = tls.RequireAndVerifyClientCert
	}
	if t.clientAuth != tls.NoClientCert && t.offered == nil {
		if !in.clientAuthSet {
			return fmt.Errorf("%w: client authentication needs a client CA bundle, which the source does not give: without one crypto/tls would accept every client with a public certificate", ErrInvalid)
		}
		// SetClientAuth was called before SetClientCAs: refuse all clients meanwhile.
		t.clients.cas = x509.NewCertPool()
		t.offered = t.clients.cas
	}
	if t.clientAuth == tls.NoClientCert && !in.clientAuthSet && previous.clientAuth != tls.NoClientCert {
		return fmt.Errorf("%w: without client CAs every client would be accepted, and they are verified now: give a client CA bundle, or turn that off with SetClientAuth(tls.NoClientCert)", ErrInvalid)
	}
	if t.clientAuth == tls.NoClientCert && in.clientRule.check != nil && !in.clientAuthSet {
		return fmt.Errorf("%w: ClientRule needs client certificates: give a client CA bundle", ErrInvalid)
	}
	return nil
}

// maxAuthorities is the size in bytes up to which the names of CAs are sent to clients. A list of
// over 64 KiB does not fit the message (RFC 8446 section 4.2.4), and some clients have a lower
// limit: Java 32 KiB. A request without names asks for any certificate.
const maxAuthorities = 16 << 10

func sizeOfNames(pool *x509.CertPool) (size int) {
	//lint:ignore SA1019 the pool is not that of the system, whose subjects alone are missing
	for _, name := range pool.Subjects() {
		size += 2 + len(name)
	}
	return size
}

// askClients sets what a server asks of clients. If their CAs cannot be named, crypto/tls asks for
// any certificate and leaves verification to VerifyConnection, which judges every client anyway.
func (t *policy) askClients(config *tls.Config) {
	config.ClientAuth, config.ClientCAs = t.clientAuth, t.offered
	if !t.unnamed {
		return
	}
	config.ClientCAs = nil
	switch t.clientAuth {
	case tls.RequireAndVerifyClientCert:
		config.ClientAuth = tls.RequireAnyClientCert
	case tls.VerifyClientCertIfGiven:
		config.ClientAuth = tls.RequestClientCert
	}
}

// sum covers whatever can turn an accepted peer into a refused one.
func (t *policy) sum() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %d %q %q %q %t\n", t.clients.id, t.servers.id, t.clientAuth, t.clients.rule, t.servers.rule, t.serverName, t.crls.Fresh)
	fmt.Fprintf(h, "%q %q\n", t.clients.domains.Sum(), t.servers.domains.Sum())
	for _, l := range t.crls.All() {
		h.Write(l.Issuer.Raw)
		h.Write(l.Entries[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// side is the roots that verify clients, or servers.
type side struct {
	cas     *x509.CertPool      // nil: for clients, no bundle; for servers, the system's roots
	known   []*x509.Certificate // the individually known certificates of cas
	base    *x509.CertPool      // a pool from the program, with the others
	domains trust.Domains       // for members of SPIFFE trust domains, in place of cas
	rule    Rule

	// id represents cas in a fingerprint. For known certificates it is a hash of them in a stable
	// order. A pool from the program can be neither read nor compared: CertPool.Equal ignores
	// constraints. It gets a random name, which it keeps while the same pool is in service.
	id, name string
}

// identify sets the id. override is a pool from a setter, which replaces those of the source.
func (s *side) identify(override *x509.CertPool, previous side) {
	if override != nil {
		s.cas, s.base, s.known = override, override, nil
	}
	if s.base != nil {
		if s.name = previous.name; s.base != previous.base {
			s.name = rand.Text()
		}
	}
	s.id = s.name + " files " + trust.Sum(s.known)
}

// judge decides about a peer, for every handshake, resumed or not, and every open connection. The
// returned peer has the chains that hold at the time when, which is now except for connections that
// outlive their certificates.
func (t *policy) judge(p *Peer, when, now time.Time) (*Peer, error) {
	by, usage := &t.clients, x509.ExtKeyUsageClientAuth
	if p.Server {
		by, usage = &t.servers, x509.ExtKeyUsageServerAuth
	} else if t.clientAuth == tls.NoClientCert {
		unverified := *p
		unverified.Chains = nil // no chain has to hold or limits the connection
		return &unverified, nil
	}
	if p.Certificate == nil {
		if t.clientAuth == tls.VerifyClientCertIfGiven {
			return p, nil
		}
		return p, fmt.Errorf("%w: the client showed no certificate", ErrUntrusted)
	}
	roots, member, err := by.domains.Roots(p.Certificate, p.Server, by.cas)
	if err != nil {
		return p, err
	}
	// Chains verified with another pool of the program do not count: constraints are checked when
	// chains are built.
	known := p.Chains
	if !member && by.base != nil && p.pool != by.id {
		known = nil
	}
	v := trust.Verifier{Roots: roots, Known: by.known, Usage: usage, Lists: t.crls, When: when, Now: now}
	chains, err := v.Verify(p.presented, known)
	if chains == nil {
		return p, err
	}
	judged := *p
	judged.Chains, judged.pool = chains, by.id
	if err == nil {
		err = by.rule.allows(&judged)
	}
	return &judged, err
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

// tolerates reports whether an error of judge is only reported.
func (t *policy) tolerates(err error) bool {
	return t.reportOnly && (errors.Is(err, ErrRevoked) || errors.Is(err, ErrCRLOutOfDate) || errors.Is(err, ErrNotAuthorized))
}
