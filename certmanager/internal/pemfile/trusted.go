package pemfile

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// The purposes that OpenSSL's TRUSTED CERTIFICATE names (RFC 5280 section 4.2.1.12).
var (
	oidAnyUsage = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	oidUsages   = map[x509.ExtKeyUsage]asn1.ObjectIdentifier{
		x509.ExtKeyUsageServerAuth: {1, 3, 6, 1, 5, 5, 7, 3, 1},
		x509.ExtKeyUsageClientAuth: {1, 3, 6, 1, 5, 5, 7, 3, 2},
	}
)

// CAs is Certificates without those that OpenSSL marks as not trusted for a usage of the peers: the
// extracted bundles of a system hold distrusted CAs so.
func (f *File) CAs(usage x509.ExtKeyUsage) ([]*x509.Certificate, []Aside, error) {
	var trusted File
	var distrusted []Aside
	for _, b := range f.blocks {
		if b.rejects(usage) {
			name := subjectOf(b.certificate())
			distrusted = append(distrusted, Aside{name, true, fmt.Errorf("certificate%s is marked as not trusted for this use (openssl x509 -addreject)", inWords(name))})
			continue
		}
		trusted.blocks = append(trusted.blocks, b)
	}
	if len(distrusted) > 0 && !trusted.HasCertificate() {
		return nil, nil, distrusted[0].Err
	}
	certs, aside, err := read(&trusted, certificate, "certificate", parseCA, subjectOf)
	return certs, append(distrusted, aside...), err
}

// parseCA refuses a CA of which no peer could be verified.
func parseCA(b block) (*x509.Certificate, error) {
	cert, err := parseCertificate(b)
	if err == nil && cert.PublicKey == nil { // Ed448 or RSA-PSS, say
		err = errors.New("its key is of a kind that crypto/x509 does not know; use ECDSA, Ed25519 or RSA")
	}
	return cert, err
}

// certificate returns the certificate of a block without what OpenSSL adds behind it.
func (b block) certificate() []byte {
	var first asn1.RawValue
	if _, err := asn1.Unmarshal(b.der, &first); err != nil {
		return b.der
	}
	return first.FullBytes
}

// rejects says whether a certificate is not to be trusted for a usage, by the rules of
// X509_check_trust.
func (b block) rejects(usage x509.ExtKeyUsage) bool {
	wanted, limits := oidUsages[usage]
	added := b.der[len(b.certificate()):]
	if !limits || b.title != "TRUSTED CERTIFICATE" || len(added) == 0 {
		return false
	}
	var aux struct {
		Trust  []asn1.ObjectIdentifier `asn1:"optional"`
		Reject []asn1.ObjectIdentifier `asn1:"optional,tag:0"`
	}
	if _, err := asn1.Unmarshal(added, &aux); err != nil {
		return true // it may say so
	}
	has := func(usages []asn1.ObjectIdentifier) bool {
		return slices.ContainsFunc(usages, func(oid asn1.ObjectIdentifier) bool { return oid.Equal(wanted) || oid.Equal(oidAnyUsage) })
	}
	return has(aux.Reject) || aux.Trust != nil && !has(aux.Trust)
}
