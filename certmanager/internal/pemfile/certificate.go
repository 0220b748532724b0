package pemfile

import (
	"crypto/x509"
	"fmt"
)

// An Aside is a certificate or revocation list of a file that cannot be read.
type Aside struct {
	Name []byte // the DER of its subject or issuer, nil if not even that can be read
	Err  error  // its number in the file, its name and the reason
}

// Certificates returns the certificates of a file, in its order, and those that cannot be read. It
// is an error if none can.
func (f *File) Certificates() ([]*x509.Certificate, []Aside, error) {
	return read(f, certificate, "certificate", parseCertificate, subjectOf)
}

// Lists returns the revocation lists of a file as Certificates returns certificates.
func (f *File) Lists() ([]*x509.RevocationList, []Aside, error) {
	return read(f, list, "revocation list", parseList, issuerOf)
}

func read[T any](f *File, k kind, what string, parse func(block) (T, error), nameOf func([]byte) []byte) (all []T, aside []Aside, err error) {
	blocks := f.of(k)
	for i, b := range blocks {
		one, err := parse(b)
		if err != nil {
			name := nameOf(b.der)
			aside = append(aside, Aside{name, fmt.Errorf("%s %d of %d%s cannot be read: %w", what, i+1, len(blocks), inWords(name), err)})
			continue
		}
		all = append(all, one)
	}
	switch {
	case len(blocks) == 0:
		return nil, nil, fmt.Errorf("it holds no %s, but %s", what, f.describe())
	case len(all) == 0:
		return nil, nil, aside[0].Err
	}
	return all, aside, nil
}

func parseCertificate(b block) (*x509.Certificate, error) {
	if b.title == "TRUSTED CERTIFICATE" { // what OpenSSL adds follows the certificate
		return x509.ParseCertificate(b.certificate())
	}
	return x509.ParseCertificate(b.der)
}
