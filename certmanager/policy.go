package certmanager

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// policy is the part of a snapshot that decides about peers. It is immutable.
type policy struct {
	clientAuth tls.ClientAuthType
	clientCAs  *x509.CertPool // nil without a bundle
	rootCAs    *x509.CertPool // nil is the system's roots
	domains    trust.Domains
	offered    *x509.CertPool // clientCAs and those of domains: what crypto/tls verifies clients with, before judge does
	unnamed    bool           // they are too many to be named in a CertificateRequest
	crls       *trust.Lists
	clientRule Rule
	serverRule Rule
	serverName string

	// reportOnly lets pass what rules and revocation lists refuse, and reports it.
	reportOnly bool

	// fingerprint tells one policy from another: tickets carry it. Where everything is
	// known by its bytes it is the same on every machine with the same files.
	fingerprint [sha256.Size]byte
	clientID    poolID // what stands for clientCAs in it
	rootID      poolID

	from *material // crls are of
}

// newPolicy makes the policy of a candidate that follows previous, nil for the first.
func newPolicy(in *inputs, o *Options, previous *policy) (*policy, error) {
	m := in.material
	if previous == nil {
		previous = &policy{}
	}
	for _, rule := range []struct {
		name string
		Rule
	}{{"ClientRule", in.clientRule}, {"ServerRule", in.serverRule}} {
		if rule.err != nil {
			return nil, fmt.Errorf("%s: %w: %w", rule.name, ErrInvalid, rule.err)
		}
	}
	t := &policy{
		clientAuth: in.clientAuth, serverName: in.serverName,
		clientRule: in.clientRule, serverRule: in.serverRule,
		reportOnly: o.ReportOnly,
		clientCAs:  m.clientPool, rootCAs: m.rootPool,
		from: m, crls: previous.crls,
	}
	if in.clientCAs != nil {
		t.clientCAs = in.clientCAs
	}
	if in.rootCAs != nil {
		t.rootCAs = in.rootCAs
	}
	if in.clientCAs == nil { // set by the program, CAs stand for all that the source gives
		t.domains, t.offered = trust.NewDomains(m.trustDomains, t.clientCAs)
	} else {
		t.offered = t.clientCAs
	}
	if err := t.decideClientAuth(in, previous); err != nil {
		return nil, err
	}
	t.unnamed = t.offered != nil && sizeOfNames(t.offered) > maxAuthorities
	if now := clock.Now(); previous.from != m || previous.crls.Begun(now) { // the lists of the last are verified
		var err error
		if t.crls, err = trust.NewLists(m.crls, m.issuers(), o.RequireFreshCRLs, now, previous.crls); err != nil {
			return nil, err
		}
	}
	t.clientID = newPoolID(m.clientCAs, in.clientCAs, previous.clientID)
	t.rootID = newPoolID(m.rootCAs, in.rootCAs, previous.rootID)
	t.fingerprint = t.sum()
	return t, nil
}

// decideClientAuth says what is asked of clients, or why the candidate would let in whom it must
// not.
func (t *policy) decideClientAuth(in *inputs, previous *policy) error {
	if !in.clientAuthSet && t.clientAuth == tls.NoClientCert && t.offered != nil {
		t.clientAuth = tls.RequireAndVerifyClientCert
	}
	if t.clientAuth != tls.NoClientCert && t.offered == nil {
		if !in.clientAuthSet {
			return fmt.Errorf("%w: client authentication needs a client CA bundle, which the source does not give: without one crypto/tls would accept every client with a public certificate", ErrInvalid)
		}
		// Set by SetClientAuth before SetClientCAs: nobody is let in meanwhile.
		t.clientCAs = x509.NewCertPool()
		t.offered = t.clientCAs
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
// over 64 KiB does not fit the message (RFC 8446 section 4.2.4), and clients give up before: Java
// at 32 KiB. A request without names asks for any certificate.
const maxAuthorities = 16 << 10

func sizeOfNames(pool *x509.CertPool) (size int) {
	//lint:ignore SA1019 the pool is not that of the system, whose subjects alone are missing
	for _, name := range pool.Subjects() {
		size += 2 + len(name)
	}
	return size
}

// askClients sets what a server asks of clients. Where their CAs cannot be named crypto/tls is told
// to ask for any certificate and to leave its verification to VerifyConnection, which judges every
// client in any case.
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
	fmt.Fprintf(h, "%q %q %d %q %q %q %t\n", t.clientID.text, t.rootID.text, t.clientAuth, t.clientRule, t.serverRule, t.serverName, t.crls.Fresh)
	io.WriteString(h, t.domains.Sum())
	for _, l := range t.crls.All() {
		h.Write(l.Issuer.Raw)
		h.Write(l.Entries[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// poolID stands for a set of CAs in a fingerprint. A set of certificates is the sum of them in a
// stable order. A pool that came from the program cannot be read, nor compared: CertPool.Equal does
// not see constraints. It gets a random name, and keeps it for as long as the same pool is in
// service.
type poolID struct {
	base *x509.CertPool // from the program
	name string         // of base
	text string
}

func newPoolID(b bundle, override *x509.CertPool, previous poolID) poolID {
	id := poolID{base: b.base}
	if override != nil {
		id.base, b.certs = override, nil
	}
	if id.base != nil {
		if id.name = previous.name; id.base != previous.base {
			id.name = rand.Text()
		}
	}
	id.text = id.name + " files " + trust.Sum(b.certs)
	return id
}

// judge decides about a peer. It is what every handshake, resumed or not, and every open connection
// has to pass. The peer that it returns carries the chains that hold at the time when, which is now
// but for connections that outlive their certificates.
func (t *policy) judge(p *Peer, when, now time.Time) (*Peer, error) {
	roots, id, rule, usage := t.clientCAs, t.clientID, t.clientRule, x509.ExtKeyUsageClientAuth
	if p.Server {
		roots, id, rule, usage = t.rootCAs, t.rootID, t.serverRule, x509.ExtKeyUsageServerAuth
	} else if t.clientAuth == tls.NoClientCert {
		return p, nil
	}
	if p.Certificate == nil {
		if t.clientAuth == tls.VerifyClientCertIfGiven {
			return p, nil
		}
		return p, fmt.Errorf("%w: the client showed no certificate", ErrUntrusted)
	}
	roots, member, err := t.domains.Roots(p.Certificate, p.Server, roots)
	if err != nil {
		return p, err
	}
	// What another pool of the program allowed this one may not: its constraints are asked when
	// chains are built.
	known := p.Chains
	if !member && id.base != nil && p.pool != id.text {
		known = nil
	}
	v := trust.Verifier{Roots: roots, Known: t.known(p.Server), Usage: usage, Lists: t.crls, When: when, Now: now}
	chains, err := v.Verify(p.presented, known)
	if chains == nil {
		return p, err
	}
	judged := *p
	judged.Chains, judged.pool = chains, id.text
	if err == nil {
		err = rule.allows(&judged)
	}
	return &judged, err
}

// known returns the CAs of a bundle, as far as it can be taken apart.
func (t *policy) known(server bool) []*x509.Certificate {
	switch {
	case server && t.rootCAs == t.from.rootPool:
		return t.from.rootCAs.certs
	case !server && t.clientCAs == t.from.clientPool:
		return t.from.clientCAs.certs
	}
	return nil // a pool of the program is in use
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

// tolerates says whether what judge found is reported only.
func (t *policy) tolerates(err error) bool {
	return t.reportOnly && (errors.Is(err, ErrRevoked) || errors.Is(err, ErrCRLOutOfDate) || errors.Is(err, ErrNotAuthorized))
}
