package certmanager

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// trust is the part of a snapshot that decides about peers. It is immutable.
type trust struct {
	clientAuth tls.ClientAuthType
	clientCAs  *x509.CertPool // nil without a bundle
	rootCAs    *x509.CertPool // nil is the system's roots
	domains    map[string]trustDomain
	offered    *x509.CertPool // clientCAs and those of domains: what crypto/tls verifies clients with, before judge does
	unnamed    bool           // they are too many to be named in a CertificateRequest
	crls       *revocations
	clientRule Rule
	serverRule Rule
	serverName string

	// reportOnly lets pass what rules and revocation lists refuse, and reports it.
	reportOnly bool

	// fingerprint tells one trust from another: tickets carry it. Where everything is
	// known by its bytes it is the same on every machine with the same files.
	fingerprint [sha256.Size]byte
	clientID    poolID // what stands for clientCAs in it
	rootID      poolID

	from *material // crls are of
}

// newTrust makes the trust of a candidate that follows previous, nil for the first.
func newTrust(in *inputs, o *Options, previous *trust) (*trust, error) {
	m := in.material
	if previous == nil {
		previous = &trust{}
	}
	for _, rule := range []struct {
		name string
		Rule
	}{{"ClientRule", in.clientRule}, {"ServerRule", in.serverRule}} {
		if rule.err != nil {
			return nil, fmt.Errorf("%s: %w: %w", rule.name, ErrInvalid, rule.err)
		}
	}
	t := &trust{
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
		t.domains, t.offered = newTrustDomains(m.trustDomains, t.clientCAs)
	} else {
		t.offered = t.clientCAs
	}
	if !in.clientAuthSet && t.clientAuth == tls.NoClientCert && t.offered != nil {
		t.clientAuth = tls.RequireAndVerifyClientCert
	}
	if t.clientAuth != tls.NoClientCert && t.offered == nil {
		if !in.clientAuthSet {
			return nil, fmt.Errorf("%w: client authentication needs a client CA bundle, which the source does not give: without one crypto/tls would accept every client with a public certificate", ErrInvalid)
		}
		// Set by SetClientAuth before SetClientCAs: nobody is let in meanwhile.
		t.clientCAs = x509.NewCertPool()
		t.offered = t.clientCAs
	}
	if t.clientAuth == tls.NoClientCert && !in.clientAuthSet && previous.clientAuth != tls.NoClientCert {
		return nil, fmt.Errorf("%w: without client CAs every client would be let in, and they are verified now: give a client CA bundle, or turn that off with SetClientAuth(tls.NoClientCert)", ErrInvalid)
	}
	if t.clientAuth == tls.NoClientCert && in.clientRule.check != nil && !in.clientAuthSet {
		return nil, fmt.Errorf("%w: ClientRule needs client certificates: give a client CA bundle", ErrInvalid)
	}
	t.unnamed = t.offered != nil && sizeOfNames(t.offered) > maxAuthorities
	if previous.from != m { // the lists of the last are verified
		issuers := slices.Concat(m.crlIssuers, m.clientCAs.certs, m.rootCAs.certs)
		for _, c := range m.certificates {
			issuers = append(issuers, c.chain[1:]...)
		}
		for _, cas := range m.trustDomains {
			issuers = append(issuers, cas...)
		}
		var err error
		if t.crls, err = newRevocations(m.crls, issuers, o.RequireFreshCRLs, clock.Now(), previous.crls); err != nil {
			return nil, err
		}
	}
	t.clientID = newPoolID(m.clientCAs, in.clientCAs, previous.clientID)
	t.rootID = newPoolID(m.rootCAs, in.rootCAs, previous.rootID)
	t.fingerprint = t.sum()
	return t, nil
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
func (t *trust) askClients(config *tls.Config) {
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
func (t *trust) sum() [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %d %q %q %q %t\n", t.clientID.text, t.rootID.text, t.clientAuth, t.clientRule, t.serverRule, t.serverName, t.crls.fresh)
	io.WriteString(h, sumOf(t.domains))
	for _, l := range t.crls.all() {
		h.Write(l.issuer.Raw)
		h.Write(l.entries[:])
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
	var sums []string
	for _, cert := range b.certs {
		sum := sha256.Sum256(cert.Raw)
		sums = append(sums, string(sum[:]))
	}
	slices.Sort(sums)
	id.text = id.name + " files " + strings.Join(slices.Compact(sums), "")
	return id
}

// judge decides about a peer. It is what every handshake, resumed or not, and every open connection
// has to pass. The peer that it returns carries the chains that hold at the time when, which is now
// but for connections that outlive their certificates.
func (t *trust) judge(p *Peer, when, now time.Time) (*Peer, error) {
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
	roots, member, err := t.rootsFor(p, roots)
	if err != nil {
		return p, err
	}
	// What another pool of the program allowed this one may not: its constraints are asked when
	// chains are built.
	chains, known, err := p.chainsTo(roots, usage, when, member || id.base == nil || p.pool == id.text)
	if err != nil {
		return p, t.explain(err, p.presented, p.Server)
	}
	good, revoked := t.notRevoked(chains, now)
	if len(good) == 0 && known {
		// Another chain than those of its handshake may hold, that of a cross-signed CA for
		// example.
		if chains, err = p.verify(roots, usage, when); err != nil {
			return p, t.explain(err, p.presented, p.Server)
		}
		good, revoked = t.notRevoked(chains, now)
	}
	judged := *p
	judged.pool = id.text
	if len(good) == 0 {
		judged.Chains = chains
		return &judged, revoked
	}
	judged.Chains = good
	return &judged, rule.allows(&judged)
}

// notRevoked returns the chains that no list has a certificate of, or why there is none.
func (t *trust) notRevoked(chains [][]*x509.Certificate, now time.Time) (good [][]*x509.Certificate, revoked error) {
	for _, chain := range chains {
		if err := t.crls.check(chain, now); err != nil {
			revoked = cmp.Or(revoked, err)
			continue
		}
		good = append(good, chain)
	}
	return good, revoked
}

// tolerates says whether what judge found is reported only.
func (t *trust) tolerates(err error) bool {
	return t.reportOnly && (errors.Is(err, ErrRevoked) || errors.Is(err, ErrCRLOutOfDate) || errors.Is(err, ErrNotAuthorized))
}

// chainsTo returns the chains of a peer that hold: those known from its handshake as far
// as they still do, or where none does, what verification finds now, since a CA may have
// been replaced by one with the same key. known says that they are those of the handshake.
func (p *Peer) chainsTo(roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time, trustKnown bool) (chains [][]*x509.Certificate, known bool, err error) {
	if err := checkDates(p.Certificate, now); err != nil {
		return nil, false, err
	}
	for _, chain := range p.Chains {
		if trustKnown && stillHolds(chain, roots, now) {
			chains = append(chains, chain)
		}
	}
	if len(chains) > 0 {
		return chains, true, nil
	}
	chains, err = p.verify(roots, usage, now)
	return chains, false, err
}

// verify builds the chains of a peer anew.
func (p *Peer) verify(roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, cert := range p.presented[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := p.Certificate.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", p, ErrUntrusted, &tls.CertificateVerificationError{UnverifiedCertificates: p.presented, Err: err})
	}
	return chains, nil
}

// stillHolds says whether a chain that was verified before is good: its signatures do
// not change, but time passes and roots are removed.
func stillHolds(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	for _, cert := range chain {
		if checkDates(cert, now) != nil {
			return false
		}
	}
	// For a member of the pool this is a lookup, see anyValidVerifiedChain in
	// crypto/tls. Where the system verifies (no bundle given, on macOS and Windows)
	// it is a verification of the root, which is right as well. That another root has issued this
	// one is not enough: the chain is longer then, and the new root may have revoked the old.
	chains, err := chain[len(chain)-1].Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil && slices.ContainsFunc(chains, func(c []*x509.Certificate) bool { return len(c) == 1 })
}
