package trust

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ergotls/ergotls/internal/dn"
)

// Verifier verifies peers.
type Verifier struct {
	Roots *x509.CertPool      // nil: the system's
	Known []*x509.Certificate // certificates known to be in Roots, for errors
	Usage x509.ExtKeyUsage    // of the peer
	Lists *Lists              // revocation lists

	// When is the time at which chains must be valid, Now the time for the lists.
	When, Now time.Time
}

// Verify returns the valid chains of a peer: those known from its handshake that still hold or, if
// none does, newly built ones, since a CA may have been replaced by one with the same key.
// presented is what the peer sent, leaf first. If lists refuse every chain, Verify returns the
// chains with the error.
func (v Verifier) Verify(presented []*x509.Certificate, known [][]*x509.Certificate) ([][]*x509.Certificate, error) {
	if err := CheckDates(presented[0], v.When); err != nil {
		return nil, err
	}
	var chains [][]*x509.Certificate
	for _, chain := range known {
		if stillHolds(chain, v.Roots, v.When) {
			chains = append(chains, chain)
		}
	}
	if good, _ := v.notRevoked(chains); len(good) > 0 {
		return good, nil
	}
	// A chain that is not known yet may hold, for example that of a cross-signed CA.
	chains, err := v.build(presented)
	if err != nil {
		return nil, err
	}
	good, err := v.notRevoked(chains)
	if len(good) > 0 {
		return good, nil
	}
	return chains, err
}

// notRevoked returns the chains without revoked certificates, or an error if there is none.
func (v Verifier) notRevoked(chains [][]*x509.Certificate) (good [][]*x509.Certificate, revoked error) {
	for _, chain := range chains {
		if err := v.Lists.check(chain, v.Now); err != nil {
			revoked = cmp.Or(revoked, err)
			continue
		}
		good = append(good, chain)
	}
	return good, revoked
}

// build builds new chains of a peer.
func (v Verifier) build(presented []*x509.Certificate) ([][]*x509.Certificate, error) {
	chains, err := presented[0].Verify(x509.VerifyOptions{
		Roots: v.Roots, Intermediates: Pool(nil, presented[1:]), CurrentTime: v.When, KeyUsages: []x509.ExtKeyUsage{v.Usage},
	})
	if err != nil {
		err = fmt.Errorf("%s: %w: %w", Describe(presented[0]), ErrUntrusted, &tls.CertificateVerificationError{UnverifiedCertificates: presented, Err: err})
		return nil, Explain(err, presented, v.Known)
	}
	return chains, nil
}

// Pool returns a pool of certificates, added to a copy of base if that is not nil.
func Pool(base *x509.CertPool, certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	if base != nil {
		pool = base.Clone()
	}
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// stillHolds reports whether a chain verified before still holds: its signatures do not change, but
// time passes and roots are removed.
func stillHolds(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) bool {
	for _, cert := range chain {
		if CheckDates(cert, now) != nil {
			return false
		}
	}
	// For a member of the pool this is a lookup, see anyValidVerifiedChain in crypto/tls. If the
	// system verifies (without a bundle, on macOS and Windows), it verifies the root, which is right
	// too. It is not enough that another root has issued this one: the chain is longer then, and the
	// new root may have revoked the old.
	chains, err := chain[len(chain)-1].Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil && slices.ContainsFunc(chains, func(c []*x509.Certificate) bool { return len(c) == 1 })
}

// Build returns a chain from a leaf to the roots, for any usage; nil if an issuer is unknown.
func Build(leaf *x509.Certificate, issuers []*x509.Certificate, roots *x509.CertPool, now time.Time) ([]*x509.Certificate, error) {
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: Pool(nil, issuers), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return chains[0], nil
	case errors.As(err, &unknown):
		return nil, nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUntrusted, err)
}

// Begin returns the time from which one of the chains is valid, which is when its last certificate
// becomes valid; zero without chains.
func Begin(chains [][]*x509.Certificate) time.Time {
	var first time.Time
	for i, chain := range chains {
		begin := chain[0].NotBefore
		for _, cert := range chain[1:] {
			if cert.NotBefore.After(begin) {
				begin = cert.NotBefore
			}
		}
		if i == 0 || begin.Before(first) {
			first = begin
		}
	}
	return first
}

// End returns when the last of the chains expires, which is when the first certificate in it
// expires; zero without chains.
func End(chains [][]*x509.Certificate) time.Time {
	var last time.Time
	for _, chain := range chains {
		end := chain[0].NotAfter
		for _, cert := range chain[1:] {
			if cert.NotAfter.Before(end) {
				end = cert.NotAfter
			}
		}
		if end.After(last) {
			last = end
		}
	}
	return last
}

// Explain adds the missing issuer, and a similar known CA, to the error of an unknown issuer. To
// the error of a wrong usage it adds the needed one. presented is what the peer sent, leaf first.
func Explain(err error, presented, known []*x509.Certificate) error {
	if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage {
		return fmt.Errorf("%w: a client's certificate needs the extended key usage clientAuth, a server's serverAuth", err)
	}
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) || len(presented) == 0 {
		return err
	}
	top := topOf(presented)
	text := fmt.Sprintf("no CA is known with the name %.200q", dn.String(top.Issuer))
	if len(top.AuthorityKeyId) > 0 {
		text += fmt.Sprintf(" and the key id %.20x", top.AuthorityKeyId)
	}
	if near := like(top, known); near != "" {
		text += ": " + near
	}
	return fmt.Errorf("%w: %s", err, text)
}

// topOf follows the issuers that a peer sent and returns the last one, whose issuer is missing.
func topOf(presented []*x509.Certificate) *x509.Certificate {
	top := presented[0]
	for range presented { // a peer may send a cycle
		next := top
		for _, cert := range presented[1:] {
			if cert != top && bytes.Equal(cert.RawSubject, top.RawIssuer) {
				next = cert
				break
			}
		}
		if next == top || bytes.Equal(top.RawSubject, top.RawIssuer) {
			break
		}
		top = next
	}
	return top
}

// like names the CA that is most similar to the issuer of a certificate.
func like(cert *x509.Certificate, cas []*x509.Certificate) string {
	for _, ca := range cas {
		if bytes.Equal(ca.RawSubject, cert.RawIssuer) {
			if len(ca.SubjectKeyId) > 0 && bytes.Equal(ca.SubjectKeyId, cert.AuthorityKeyId) {
				return fmt.Sprintf("the one of that name and key id (serial %x) did not sign it", ca.SerialNumber)
			}
			return fmt.Sprintf("the one of that name (serial %x) has another key, with the id %.20x", ca.SerialNumber, ca.SubjectKeyId)
		}
	}
	for _, ca := range cas {
		if len(ca.SubjectKeyId) > 0 && bytes.Equal(ca.SubjectKeyId, cert.AuthorityKeyId) {
			return fmt.Sprintf("the one of that key id has the name %.200q", dn.String(ca.Subject))
		}
	}
	return ""
}
