package pemfile

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
)

// parseList parses a revocation list. crypto/x509 refuses version 1, which openssl ca -gencrl
// writes where its configuration names no extensions (golang/go#77871). What it lacks,
// extensions and a number, is optional.
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

// signatureAlgorithms are those of lists of version 1 by their OID. Those with SHA-1 are
// found to be insecure when the signature is checked.
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
