package certmanager

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
)

// parseRevocationList is x509.ParseRevocationList for lists of version 1 too, which openssl ca -gencrl makes without
// crl_extensions (RFC 5280 section 5.1.2.1, golang.org/issue/77871).
func parseRevocationList(der []byte) (*x509.RevocationList, error) {
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		return list, nil
	}
	old := new(pkix.CertificateList)
	if rest, failed := asn1.Unmarshal(der, old); failed != nil || len(rest) > 0 || old.TBSCertList.Version != 0 || len(old.TBSCertList.Extensions) > 0 {
		return nil, err
	}
	tbs := old.TBSCertList
	algorithm := signatureAlgorithm(old.SignatureAlgorithm.Algorithm)
	if !tbs.Signature.Algorithm.Equal(old.SignatureAlgorithm.Algorithm) || algorithm == x509.UnknownSignatureAlgorithm {
		return nil, errors.New("x509: a revocation list of version 1 with an unknown signature algorithm")
	}
	list = &x509.RevocationList{
		Raw: der, RawTBSRevocationList: tbs.Raw,
		Signature: old.SignatureValue.RightAlign(), SignatureAlgorithm: algorithm,
		ThisUpdate: tbs.ThisUpdate, NextUpdate: tbs.NextUpdate,
	}
	list.Issuer.FillFromRDNSequence(&tbs.Issuer)
	if list.RawIssuer, err = rawIssuer(tbs.Raw); err != nil {
		return nil, err
	}
	for _, entry := range tbs.RevokedCertificates {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: entry.SerialNumber, RevocationTime: entry.RevocationTime, Extensions: entry.Extensions,
		})
	}
	return list, nil
}

// rawIssuer gives the bytes of the issuer's name: certificates are compared by them.
func rawIssuer(tbs []byte) ([]byte, error) {
	var list struct {
		Signature  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		ThisUpdate asn1.RawValue
		NextUpdate asn1.RawValue `asn1:"optional"`
		Revoked    asn1.RawValue `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(tbs, &list); err != nil {
		return nil, err
	}
	return list.Issuer.FullBytes, nil
}

var signatureAlgorithms = []struct {
	oid       asn1.ObjectIdentifier
	algorithm x509.SignatureAlgorithm
}{
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.SHA256WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, x509.SHA384WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, x509.SHA512WithRSA},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, x509.ECDSAWithSHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, x509.ECDSAWithSHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, x509.ECDSAWithSHA512},
	{asn1.ObjectIdentifier{1, 3, 101, 112}, x509.PureEd25519},
}

// signatureAlgorithm is x509's own table, which it does not export, without SHA-1 and the parameters of RSA-PSS.
func signatureAlgorithm(oid asn1.ObjectIdentifier) x509.SignatureAlgorithm {
	for _, known := range signatureAlgorithms {
		if known.oid.Equal(oid) {
			return known.algorithm
		}
	}
	return x509.UnknownSignatureAlgorithm
}
