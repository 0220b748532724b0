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

// Arrange sorts the certificates of a chain as peers expect them (RFC 8446 section 4.4.2): the
// leaf, then each issuer after the certificates that it issued. If there are several paths, as with
// cross-signed CAs, it includes all currently valid issuers. It sets certificates aside with a
// warning if they issued none of the others, or are not currently valid while peers may have
// another certificate of the same name.
func Arrange(leaf *x509.Certificate, certs []*x509.Certificate, now time.Time) (chain []*x509.Certificate, warning string, err error) {
	if chain = climb([]*x509.Certificate{leaf}, certs, now); len(chain) > maxChain {
		return nil, "", fmt.Errorf("%w: its chain has more than %d certificates", ErrInvalid, maxChain)
	}
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
		return nil, "", err
	}
	if len(aside) > 0 {
		warning = "is served without " + reasons(aside, now)
	}
	return chain, warning, nil
}

// climb appends the issuers of the last certificate of a chain, each followed by its own issuers.
// It ends early if they are too many.
func climb(chain, certs []*x509.Certificate, now time.Time) []*x509.Certificate {
	last := chain[len(chain)-1]
	for _, cert := range certs {
		if len(chain) > maxChain {
			break
		}
		if !slices.Contains(chain, cert) && Issued(cert, last) && unusable(cert, now) == nil {
			chain = climb(append(chain, cert), certs, now)
		}
	}
	return chain
}

// Issued reports whether a CA signed a certificate, with any algorithm.
func Issued(ca, cert *x509.Certificate) bool {
	if !bytes.Equal(ca.RawSubject, cert.RawIssuer) {
		return false
	}
	err := cert.CheckSignatureFrom(ca)
	var insecure x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &insecure)
}

// unusable returns the reason why no peer builds a chain with a CA.
func unusable(ca *x509.Certificate, now time.Time) error {
	if err := CheckDates(ca, now); err != nil {
		return err
	}
	return CheckAlgorithm(ca)
}

// missing returns an error if a leaf without a chain cannot be served: its issuer is among the
// others but not usable, or there are CAs and its issuer is not among them.
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
		return fmt.Errorf("%w: its issuer %q is missing: none of the other certificates in its chain signed it; append the issuer", ErrInvalid, dn.String(leaf.Issuer))
	}
	return err
}

// reasons returns why certificates are set aside.
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
