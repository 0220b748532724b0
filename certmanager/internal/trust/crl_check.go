package trust

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"
)

// check checks every certificate of a chain. The last is trusted by itself unless another CA has
// revoked it.
func (r *Lists) check(chain []*x509.Certificate, now time.Time) error {
	if len(r.lists) == 0 {
		return nil
	}
	for i := range len(chain) - 1 {
		if err := r.checkOne(chain[i], chain[i+1], now); err != nil {
			return err
		}
	}
	return r.checkAnchor(chain[len(chain)-1])
}

func (r *Lists) checkOne(cert, issuer *x509.Certificate, now time.Time) error {
	for _, l := range r.of(issuer) {
		if when, ok := l.Revoked[string(cert.SerialNumber.Bytes())]; ok {
			return fmt.Errorf("%w: %s was revoked by %s on %s", ErrRevoked, Describe(cert), Describe(issuer), when.Format(time.RFC3339))
		}
		if r.Fresh && l.scope.covers(cert) && l.OutOfDate(now) {
			return fmt.Errorf("%w: that of %s ended %s", ErrOutOfDate, Describe(issuer), l.CRL.NextUpdate.Format(time.RFC3339))
		}
	}
	return nil
}

// checkAnchor checks a CA that chains end with. Like openssl verify -crl_check_all it refuses one
// that another CA has revoked, although it is in the bundle.
func (r *Lists) checkAnchor(ca *x509.Certificate) error {
	if bytes.Equal(ca.RawIssuer, ca.RawSubject) {
		return nil
	}
	known, ok := r.anchors.Load(string(ca.Raw))
	if !ok {
		known = r.revokedAnchor(ca, 0)
		r.anchors.Store(string(ca.Raw), known) // only for CAs in the bundles
	}
	err, _ := known.(error)
	return err
}

// maxPathLength limits the number of CAs above one that another has issued.
const maxPathLength = 10

// revokedAnchor finds a list that revokes the CA or one above it.
func (r *Lists) revokedAnchor(ca *x509.Certificate, depth int) error {
	if bytes.Equal(ca.RawIssuer, ca.RawSubject) || depth > maxPathLength {
		return nil
	}
	name := CanonicalName(ca.RawIssuer)
	for _, l := range r.lists[name] {
		if when, ok := l.Revoked[string(ca.SerialNumber.Bytes())]; ok && ca.CheckSignatureFrom(l.Issuer) == nil {
			return fmt.Errorf("%w: %s was revoked by %s on %s", ErrRevoked, Describe(ca), Describe(l.Issuer), when.Format(time.RFC3339))
		}
	}
	var revoked error
	for _, issuer := range r.issuers[name] {
		if ca.CheckSignatureFrom(issuer) == nil {
			if revoked = r.revokedAnchor(issuer, depth+1); revoked == nil {
				return nil // if an issuer has several certificates, one unrevoked is enough
			}
		}
	}
	return revoked
}
