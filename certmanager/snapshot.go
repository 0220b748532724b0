package certmanager

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// inputs is everything that a snapshot is made of: what the source gave last, and what
// the program set since.
type inputs struct {
	material *material

	update     *certificate // from Update, until the source changes
	clientCAs  *x509.CertPool
	rootCAs    *x509.CertPool
	clientAuth tls.ClientAuthType
	// clientAuthSet means that SetClientAuth decided, so that the presence of a bundle
	// no longer does.
	clientAuthSet bool
	serverName    string
	clientRule    Rule
	serverRule    Rule
	ruled         int // how often a rule was set: one of the same name may decide otherwise
}

// certificates returns what is served, the default first.
func (in *inputs) certificates() []*certificate {
	if in.update == nil {
		return in.material.certificates
	}
	return append([]*certificate{in.update}, in.material.certificates...)
}

// snapshot is one consistent set: a handshake takes it once and uses it to its end. It
// is immutable.
type snapshot struct {
	generation uint64
	published  time.Time
	in         inputs
	certs      []*certificate
	names      *names
	policy     *policy
	ech        []tls.EncryptedClientHelloKey
	funcs      []Func
	doubts     []error       // about what was taken all the same
	replaced   chan struct{} // closed when another is in service
}

// newSnapshot makes a candidate from inputs. It is published only after a rehearsal.
func newSnapshot(in inputs, o *Options, previous *snapshot) (*snapshot, error) {
	var before *policy
	if previous != nil {
		before = previous.policy
	}
	t, err := newPolicy(&in, o, before)
	if err != nil {
		return nil, err
	}
	certs := in.certificates()
	if len(certs) == 0 && !in.material.late && t.offered == nil && t.rootCAs == nil {
		return nil, fmt.Errorf("%w: the source gives neither a certificate nor a CA bundle", ErrNoCertificate)
	}
	s := &snapshot{
		in: in, certs: certs, policy: t, doubts: warningsOf(certs),
		ech: in.material.echKeys, funcs: in.material.funcs, replaced: make(chan struct{}),
	}
	if s.sameCertificates(previous) {
		s.names = previous.names
	} else {
		s.names = newNames(in.material.certificates, in.update)
	}
	return s, nil
}

// warningsOf returns what is to be said of certificates that are served all the same.
func warningsOf(certs []*certificate) (all []error) {
	for _, c := range certs {
		all = append(all, c.warnings...)
	}
	return all
}

// sameCertificates says whether the snapshot differs from another in what the program has set
// alone.
func (s *snapshot) sameCertificates(other *snapshot) bool {
	return other != nil && s.in.material == other.in.material && s.in.update == other.in.update
}

// getClientCertificate is what the snapshot shows a server that asks: the first
// certificate that the server accepts, or none, as crypto/tls does. One that has ended
// comes after those that hold.
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

// coversItself is covers without the certificates that their source takes away when they end.
func (s *snapshot) coversItself(name string) bool {
	return slices.ContainsFunc(s.certs, func(c *certificate) bool {
		return c.server && !c.owner && (c.tls.Leaf.VerifyHostname(trust.NormalName(name)) == nil || c.tls.Leaf.VerifyHostname(name) == nil)
	})
}

// served lists the names of the certificates for servers, as far as a line of text can.
func (s *snapshot) served() string {
	const most = 5
	var names []string
	for _, c := range s.certs {
		if c.server {
			names = append(names, NewCertificateInfo(c.tls.Leaf, "").Names...)
		}
	}
	switch more := len(names) - most; {
	case len(names) == 0:
		return "no name"
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}

// covers says whether a client that asks for the name gets a certificate for it.
func (s *snapshot) covers(name string) bool {
	for _, c := range s.names.lookup(name).list() {
		if c.tls.Leaf.VerifyHostname(trust.NormalName(name)) == nil {
			return true
		}
	}
	return slices.ContainsFunc(s.certs, func(c *certificate) bool { // an IP address
		return c.server && c.tls.Leaf.VerifyHostname(name) == nil
	})
}
