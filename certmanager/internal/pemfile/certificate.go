package pemfile

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/dn"
)

// An Aside is an unusable certificate or revocation list of a file.
type Aside struct {
	Name       []byte // the DER of its subject or issuer, nil if that cannot be read either
	Distrusted bool   // a readable CA that OpenSSL marks as not trusted
	Err        error  // its number in the file, its name and the reason
}

// Found has the entries of one kind in a file, in order.
type Found[T any] struct {
	All   []T
	Aside []Aside
}

// Certificates returns the certificates of a file. If none can be read it returns an error.
func (f *File) Certificates() (Found[*x509.Certificate], error) {
	return read(f, certificate, "certificate", parseCertificate, subjectOf)
}

// Lists returns the revocation lists of a file as Certificates returns certificates.
func (f *File) Lists() (Found[*x509.RevocationList], error) {
	return read(f, list, "revocation list", parseList, issuerOf)
}

func read[T any](f *File, k kind, what string, parse func(block) (T, error), nameOf func([]byte) []byte) (found Found[T], err error) {
	blocks := f.of(k)
	for i, b := range blocks {
		one, err := parse(b)
		if err != nil {
			name := nameOf(b.der)
			found.Aside = append(found.Aside, Aside{Name: name, Err: fmt.Errorf("%s %d of %d%s cannot be read: %w", what, i+1, len(blocks), inWords(name), err)})
			continue
		}
		found.All = append(found.All, one)
	}
	switch {
	case len(blocks) == 0:
		return found, fmt.Errorf("it holds no %s, but %s", what, f.describe())
	case len(found.All) == 0:
		return found, found.Aside[0].Err
	}
	return found, nil
}

func parseCertificate(b block) (*x509.Certificate, error) {
	if b.title == "TRUSTED CERTIFICATE" { // OpenSSL's additions follow the certificate
		return x509.ParseCertificate(b.certificate())
	}
	return x509.ParseCertificate(b.der)
}

// parseList parses a revocation list. crypto/x509 refuses version 1, which openssl ca -gencrl
// writes if its configuration has no extensions (golang/go#77871). Such a list lacks extensions and
// a number, which are optional.
func parseList(b block) (*x509.RevocationList, error) {
	der := b.der
	l, err := x509.ParseRevocationList(der)
	if err == nil {
		return l, nil
	}
	old := new(pkix.CertificateList)
	if rest, failed := asn1.Unmarshal(der, old); failed != nil || len(rest) > 0 || old.TBSCertList.Version != 0 || len(old.TBSCertList.Extensions) > 0 {
		return nil, err
	}
	algorithm := signatureAlgorithms[old.SignatureAlgorithm.Algorithm.String()]
	if algorithm == 0 {
		return nil, errors.New("version 1, signed with the unknown algorithm " + old.SignatureAlgorithm.Algorithm.String())
	}
	l = &x509.RevocationList{
		Raw: der, RawTBSRevocationList: old.TBSCertList.Raw, RawIssuer: issuerOf(der),
		Signature: old.SignatureValue.RightAlign(), SignatureAlgorithm: algorithm,
		ThisUpdate: old.TBSCertList.ThisUpdate, NextUpdate: old.TBSCertList.NextUpdate,
	}
	l.Issuer.FillFromRDNSequence(&old.TBSCertList.Issuer)
	for _, revoked := range old.TBSCertList.RevokedCertificates {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: revoked.SerialNumber, RevocationTime: revoked.RevocationTime,
		})
	}
	return l, nil
}

// signatureAlgorithms are the algorithms of version 1 lists by OID. Those with SHA-1 are refused
// when the signature is checked.
var signatureAlgorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.5":  x509.SHA1WithRSA,
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA,
	"1.2.840.113549.1.1.12": x509.SHA384WithRSA,
	"1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.1":     x509.ECDSAWithSHA1,
	"1.2.840.10045.4.3.2":   x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3":   x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4":   x509.ECDSAWithSHA512,
	"1.3.101.112":           x509.PureEd25519,
}

// subjectOf returns the subject of a certificate that crypto/x509 cannot parse, nil if it cannot be
// found.
func subjectOf(der []byte) []byte {
	version := tags.Tag(0).ContextSpecific().Constructed()
	return nameAfter(der, version, tags.INTEGER, tags.SEQUENCE, tags.SEQUENCE, tags.SEQUENCE)
}

// issuerOf does the same for the issuer of a revocation list.
func issuerOf(der []byte) []byte { return nameAfter(der, tags.INTEGER, tags.SEQUENCE) }

// nameAfter returns the name that follows other elements in the signed part.
func nameAfter(der []byte, others ...tags.Tag) []byte {
	var signed, part, name cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&signed, tags.SEQUENCE) || !signed.ReadASN1(&part, tags.SEQUENCE) {
		return nil
	}
	for _, tag := range others {
		part.SkipOptionalASN1(tag)
	}
	if !part.ReadASN1Element(&name, tags.SEQUENCE) || !unmarshals(name, new(pkix.RDNSequence)) {
		return nil
	}
	return name
}

// inWords formats a name for an error.
func inWords(der []byte) string {
	var rdns pkix.RDNSequence
	if _, err := asn1.Unmarshal(der, &rdns); err != nil {
		return ""
	}
	var name pkix.Name
	name.FillFromRDNSequence(&rdns)
	text := dn.String(name)
	return fmt.Sprintf(" (%q)", text[:min(len(text), 200)])
}

// The purposes in OpenSSL's TRUSTED CERTIFICATE (RFC 5280 section 4.2.1.12).
var (
	oidAnyUsage = asn1.ObjectIdentifier{2, 5, 29, 37, 0}
	oidUsages   = map[x509.ExtKeyUsage]asn1.ObjectIdentifier{
		x509.ExtKeyUsageServerAuth: {1, 3, 6, 1, 5, 5, 7, 3, 1},
		x509.ExtKeyUsageClientAuth: {1, 3, 6, 1, 5, 5, 7, 3, 2},
	}
)

// CAs is Certificates without those that OpenSSL marks as not trusted for a usage of the peers. The
// bundles extracted by a system mark distrusted CAs in this way.
func (f *File) CAs(usage x509.ExtKeyUsage) (Found[*x509.Certificate], error) {
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
		return Found[*x509.Certificate]{}, distrusted[0].Err
	}
	found, err := read(&trusted, certificate, "certificate", parseCA, subjectOf)
	found.Aside = append(distrusted, found.Aside...)
	return found, err
}

// parseCA refuses a CA that could verify no peer.
func parseCA(b block) (*x509.Certificate, error) {
	cert, err := parseCertificate(b)
	switch {
	case err != nil:
	case cert.PublicKey == nil: // for example Ed448 or RSA-PSS
		err = errors.New("its key is of a kind that crypto/x509 does not know; use ECDSA, Ed25519 or RSA")
	default:
		err = trust.CheckKeySize(cert)
	}
	return cert, err
}

// certificate returns the certificate of a block without OpenSSL's additions.
func (b block) certificate() []byte {
	var first asn1.RawValue
	if _, err := asn1.Unmarshal(b.der, &first); err != nil {
		return b.der
	}
	return first.FullBytes
}

// rejects reports whether a certificate is not trusted for a usage, by the rules of
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
		return true // it may reject the usage
	}
	has := func(usages []asn1.ObjectIdentifier) bool {
		return slices.ContainsFunc(usages, func(oid asn1.ObjectIdentifier) bool { return oid.Equal(wanted) || oid.Equal(oidAnyUsage) })
	}
	return has(aux.Reject) || aux.Trust != nil && !has(aux.Trust)
}
