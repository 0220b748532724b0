package trust

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/ergotls/ergotls/internal/dn"
)

// Explain adds to the error of an unknown issuer which one was looked for, and which of the known
// CAs is like it. To that of a certificate for another purpose it adds which one is needed.
// presented is what the peer sent, leaf first.
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

// topOf follows the issuers that a peer sent, and returns the last of them. Its issuer is the one
// that is missing.
func topOf(presented []*x509.Certificate) *x509.Certificate {
	top := presented[0]
	for range presented { // a peer may send a circle
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

// like says which CA is most like the issuer of a certificate.
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
