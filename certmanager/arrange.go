package certmanager

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// arrange brings the certificates of a chain in the order in which peers want them, RFC 8446
// section 4.4.2: the leaf, then each issuer after what it issued. Where there are several ways up,
// as cross-signed CAs make them, all that are in their time follow. What is not needed is set aside
// with a warning: what issued none of the others, or is outside its time while peers may know its
// name by another certificate.
func (c *certificate) arrange(certs []*x509.Certificate, now time.Time) error {
	leaf := c.tls.Leaf
	c.chain = climb([]*x509.Certificate{leaf}, certs, now)
	var aside []*x509.Certificate
	for _, cert := range certs {
		if !slices.Contains(c.chain, cert) {
			aside = append(aside, cert)
		}
	}
	if len(c.chain) > 1 {
		if err := checkAlgorithm(leaf); err != nil {
			return err
		}
	} else if err := missing(leaf, aside, now); err != nil {
		return err
	}
	c.tls.Certificate = nil
	for _, cert := range c.chain {
		c.tls.Certificate = append(c.tls.Certificate, cert.Raw)
	}
	if !inOrder(certs, c.chain) {
		c.warn("is served in another order than it was given in; put the leaf first and each issuer after what it issued")
	}
	if len(aside) > 0 {
		c.warn("is served without %s", reasons(aside, now))
	}
	return nil
}

func (c *certificate) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Errorf("%s: certificate %s %s", c.origin, describe(c.tls.Leaf), fmt.Sprintf(format, args...)))
}

// climb appends the issuers of the last certificate of a chain, each followed by its own.
func climb(chain, certs []*x509.Certificate, now time.Time) []*x509.Certificate {
	last := chain[len(chain)-1]
	for _, cert := range certs {
		if !slices.Contains(chain, cert) && issued(cert, last) && unusable(cert, now) == nil {
			chain = climb(append(chain, cert), certs, now)
		}
	}
	return chain
}

// issued says whether a CA signed a certificate, with whatever algorithm.
func issued(ca, cert *x509.Certificate) bool {
	if !bytes.Equal(ca.RawSubject, cert.RawIssuer) {
		return false
	}
	err := cert.CheckSignatureFrom(ca)
	var insecure x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &insecure)
}

// unusable says why no peer builds a chain with a CA.
func unusable(ca *x509.Certificate, now time.Time) error {
	if err := checkDates(ca, now); err != nil {
		return err
	}
	return checkAlgorithm(ca)
}

// checkAlgorithm refuses signatures that crypto/x509 does not accept. Nobody looks at a root's.
func checkAlgorithm(cert *x509.Certificate) error {
	switch cert.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		if !isRoot(cert) {
			return fmt.Errorf("%w: %s is signed with %s, which TLS peers no longer accept; have it issued again, with SHA-256 in place of SHA-1 or MD5",
				ErrInvalid, describe(cert), cert.SignatureAlgorithm)
		}
	}
	return nil
}

// missing says whether a leaf that stands alone cannot be served without its issuer: that is among
// the others and not usable, or there are CAs, and it is not among them.
func missing(leaf *x509.Certificate, others []*x509.Certificate, now time.Time) error {
	ca := false
	var err error
	for _, cert := range others {
		ca = ca || cert.IsCA
		if !issued(cert, leaf) {
			continue
		}
		if isRoot(cert) {
			return nil // peers have roots of their own
		}
		err = cmp.Or(err, unusable(cert, now))
	}
	if err == nil && ca && !isRoot(leaf) {
		return fmt.Errorf("%w: its issuer %q is missing: none of the certificates that stand beside it signed it; append the issuer", ErrInvalid, leaf.Issuer.String())
	}
	return err
}

// inOrder says whether each certificate of a chain stands behind one that it issued.
func inOrder(certs, chain []*x509.Certificate) bool {
	var before []*x509.Certificate
	for _, cert := range certs {
		if !slices.Contains(chain, cert) {
			continue
		}
		if len(before) == 0 && cert != chain[0] ||
			len(before) > 0 && !slices.ContainsFunc(before, func(other *x509.Certificate) bool { return issued(cert, other) }) {
			return false
		}
		before = append(before, cert)
	}
	return true
}

// reasons says why certificates are set aside.
func reasons(aside []*x509.Certificate, now time.Time) string {
	const most = 3
	var texts []string
	for _, cert := range aside[:min(len(aside), most)] {
		text := describe(cert) + ", which issued none of the others"
		if err := unusable(cert, now); err != nil {
			text = err.Error()
		}
		texts = append(texts, text)
	}
	if len(aside) > most {
		texts = append(texts, fmt.Sprintf("%d more", len(aside)-most))
	}
	return strings.Join(texts, "; ")
}

// oidTLSFeature marks a certificate whose peers insist on TLS extensions, RFC 7633.
var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// statusRequest is the extension with an OCSP response, RFC 6066 section 8.
const statusRequest = 5

// checkLeaf warns of what some peers refuse in a leaf.
func (c *certificate) checkLeaf() {
	leaf := c.tls.Leaf
	for _, ext := range leaf.Extensions {
		var features []int
		if !ext.Id.Equal(oidTLSFeature) || len(c.tls.OCSPStaple) > 0 {
			continue
		}
		if _, err := asn1.Unmarshal(ext.Value, &features); err == nil && slices.Contains(features, statusRequest) {
			c.warn("asks for a stapled OCSP response (must-staple), and there is none: peers that insist on it refuse it; have it issued without")
		}
	}
	if c.server && len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) == 0 {
		c.warn("has no names (subject alternative names): clients verify a server by these and refuse it; its common name does not count")
	}
	if err := checkAlgorithm(leaf); err != nil {
		c.warnings = append(c.warnings, fmt.Errorf("%s: %w", c.origin, err))
	}
}
