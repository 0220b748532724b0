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
func (f *File) Certificates() (certs []*x509.Certificate, aside []Aside, err error) {
	blocks := f.of(certificate)
	for i, b := range blocks {
		cert, err := parseCertificate(b)
		if err != nil {
			name := subjectOf(b.der)
			aside = append(aside, Aside{name, fmt.Errorf("certificate %d of %d%s cannot be read: %w", i+1, len(blocks), inWords(name), err)})
			continue
		}
		certs = append(certs, cert)
	}
	switch {
	case len(blocks) == 0:
		return nil, nil, fmt.Errorf("it holds no certificate, but %s", f.describe())
	case len(certs) == 0:
		return nil, nil, aside[0].Err
	}
	return certs, aside, nil
}

func parseCertificate(b block) (*x509.Certificate, error) {
	if b.title == "TRUSTED CERTIFICATE" { // what OpenSSL adds follows the certificate
		return x509.ParseCertificate(b.certificate())
	}
	return x509.ParseCertificate(b.der)
}

// Lists returns the revocation lists of a file as Certificates returns certificates.
func (f *File) Lists() (lists []*x509.RevocationList, aside []Aside, err error) {
	blocks := f.of(list)
	for i, b := range blocks {
		l, err := parseList(b.der)
		if err != nil {
			name := issuerOf(b.der)
			aside = append(aside, Aside{name, fmt.Errorf("revocation list %d of %d%s cannot be read: %w", i+1, len(blocks), inWords(name), err)})
			continue
		}
		lists = append(lists, l)
	}
	switch {
	case len(blocks) == 0:
		return nil, nil, fmt.Errorf("it holds no revocation list, but %s", f.describe())
	case len(lists) == 0:
		return nil, nil, aside[0].Err
	}
	return lists, aside, nil
}
