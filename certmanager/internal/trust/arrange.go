package trust

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/internal/dn"
)

// Arrange brings the certificates of a chain in the order in which peers want them, RFC 8446
// section 4.4.2: the leaf, then each issuer after what it issued. Where there are several ways up,
// as cross-signed CAs make them, all that are in their time follow. What is not needed is set aside
// with a warning: what issued none of the others, or is outside its time while peers may know its
// name by another certificate.
func Arrange(leaf *x509.Certificate, certs []*x509.Certificate, now time.Time) (chain []*x509.Certificate, warnings []string, err error) {
	chain = climb([]*x509.Certificate{leaf}, certs, now)
	var aside []*x509.Certificate
	for _, cert := range certs {
		if !slices.Contains(chain, cert) {
			aside = append(aside, cert)
		}
	}
	if len(chain) > 1 {
		err = CheckAlgorithm(leaf)
	} else {
		err = missing(leaf, aside, now)
	}
	if err != nil {
		return nil, nil, err
	}
	if !inOrder(certs, chain) {
		warnings = append(warnings, "is served in another order than it was given in; put the leaf first and each issuer after what it issued")
	}
	if len(aside) > 0 {
		warnings = append(warnings, "is served without "+reasons(aside, now))
	}
	return chain, warnings, nil
}

// climb appends the issuers of the last certificate of a chain, each followed by its own.
func climb(chain, certs []*x509.Certificate, now time.Time) []*x509.Certificate {
	last := chain[len(chain)-1]
	for _, cert := range certs {
		if !slices.Contains(chain, cert) && Issued(cert, last) && unusable(cert, now) == nil {
			chain = climb(append(chain, cert), certs, now)
		}
	}
	return chain
}

// Issued says whether a CA signed a certificate, with whatever algorithm.
func Issued(ca, cert *x509.Certificate) bool {
	if !bytes.Equal(ca.RawSubject, cert.RawIssuer) {
		return false
	}
	err := cert.CheckSignatureFrom(ca)
	var insecure x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &insecure)
}

// unusable says why no peer builds a chain with a CA.
func unusable(ca *x509.Certificate, now time.Time) error {
	if err := CheckDates(ca, now); err != nil {
		return err
	}
	return CheckAlgorithm(ca)
}

// missing says whether a leaf that stands alone cannot be served without its issuer: that is among
// the others and not usable, or there are CAs, and it is not among them.
func missing(leaf *x509.Certificate, others []*x509.Certificate, now time.Time) error {
	ca := false
	var err error
	for _, cert := range others {
		ca = ca || cert.IsCA
		if !Issued(cert, leaf) {
			continue
		}
		if IsRoot(cert) {
			return nil // peers have roots of their own
		}
		err = cmp.Or(err, unusable(cert, now))
	}
	if err == nil && ca && !IsRoot(leaf) {
		return fmt.Errorf("%w: its issuer %q is missing: none of the certificates that stand beside it signed it; append the issuer", ErrInvalid, dn.String(leaf.Issuer))
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
			len(before) > 0 && !slices.ContainsFunc(before, func(other *x509.Certificate) bool { return Issued(cert, other) }) {
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
		text := Describe(cert) + ", which issued none of the others"
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
