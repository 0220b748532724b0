package certmanager

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// inputs is everything that a snapshot is made from: the last contents of the source, and the
// values set by the program.
type inputs struct {
	material *material

	update     *certificate // from Update; nil once the source has replaced it
	clientCAs  *x509.CertPool
	rootCAs    *x509.CertPool
	clientAuth tls.ClientAuthType
	// clientAuthSet means that SetClientAuth was called, so that the presence of a bundle no longer
	// matters.
	clientAuthSet bool
	serverName    string
	clientRule    Rule
	serverRule    Rule
	ruled         int // how often a rule was set: one of the same name may decide differently
}

// snapshot is one consistent set. A handshake loads it once and uses it to the end. It is
// immutable.
type snapshot struct {
	generation uint64
	published  time.Time
	in         inputs
	certs      []*certificate // the served certificates, the default first
	names      *names
	identity   [sha256.Size]byte // identifies the certificates that clients present
	policy     *policy
	doubts     []error // warnings about accepted contents

	regressions []error // how it is worse than the snapshot before it
}

// emptySnapshot is the snapshot before the first set.
func emptySnapshot(in inputs) *snapshot {
	in.material = &material{}
	return &snapshot{in: in, names: &names{}, policy: &policy{crls: &trust.Lists{}}}
}

// newSnapshot makes a candidate from inputs. It is published only after a rehearsal.
func newSnapshot(in inputs, o *Options, previous *snapshot) (*snapshot, error) {
	t, err := newPolicy(&in, o, previous.policy)
	if err != nil {
		return nil, err
	}
	certs := in.material.certificates
	if in.update != nil {
		certs = append([]*certificate{in.update}, certs...)
	}
	if len(certs) == 0 && !in.material.late && t.offered == nil && t.servers.cas == nil {
		return nil, fmt.Errorf("%w: the source gives neither a certificate nor a CA bundle", ErrNoCertificate)
	}
	s := &snapshot{in: in, certs: certs, policy: t}
	identity := sha256.New()
	for _, c := range certs {
		if c.client {
			identity.Write(c.tls.Leaf.Signature)
		}
		s.doubts = append(s.doubts, c.warnings...)
	}
	identity.Sum(s.identity[:0])
	if s.sameCertificates(previous) {
		s.names = previous.names
	} else {
		s.names = newNames(certs, in.update)
	}
	return s, nil
}

// sameCertificates reports whether two snapshots differ only in values set by the program.
func (s *snapshot) sameCertificates(other *snapshot) bool {
	return s.in.material == other.in.material && s.in.update == other.in.update
}

// getClientCertificate returns the certificate for a server that asks for one: the first that the
// server accepts, or none, as crypto/tls does. Expired certificates come last.
func (s *snapshot) getClientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	now, last := clock.Now(), new(tls.Certificate)
	for _, c := range s.certs {
		switch {
		case !c.client || request.SupportsCertificate(&c.tls) != nil:
		case !now.After(c.tls.Leaf.NotAfter):
			return &c.tls, nil
		case last.Leaf == nil:
			last = &c.tls
		}
	}
	return last, nil
}

// covers reports whether a client that asks for a name, or dials an address, gets a certificate for
// it. If lasting is set, certificates that their source removes when they expire do not count.
func (s *snapshot) covers(name string, lasting bool) bool {
	if addr, err := netip.ParseAddr(name); err == nil {
		name = addr.Unmap().String()
	}
	return slices.ContainsFunc(s.names.lookup(name).list(), func(c *certificate) bool { return !lasting || !c.renewed })
}

// served lists the names of the certificates for servers, shortened to fit a line.
func (s *snapshot) served() string {
	var names []string
	for _, c := range s.certs {
		if c.server {
			names = append(names, namesOf(c.tls.Leaf)...)
		}
	}
	return cmp.Or(few(names), "no name")
}
