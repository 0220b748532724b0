package trust

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer        = asn1.ObjectIdentifier{2, 5, 29, 29}
)

// scope is the part of an issuer's certificates that a list is complete for (RFC 5280 section
// 5.2.5). The zero scope is all.
type scope struct {
	users, cas bool   // only certificates of users, of CAs
	uris       string // only certificates with one of these distribution points, separated by spaces; empty: whatever they have
	future     bool   // the list is dated in the future
}

// isDelta says whether a list has only what has changed, also where it does not say so as it should
// (RFC 5280 section 5.2.4).
func isDelta(list *x509.RevocationList) bool {
	for _, ext := range list.Extensions {
		if ext.Id.Equal(oidDeltaCRLIndicator) {
			return true
		}
	}
	return false
}

// CheckList says why a list cannot be used, whoever has signed it.
func CheckList(list *x509.RevocationList) error {
	if isDelta(list) {
		return errors.New("it is a delta list, which is not used: give the address of the full list")
	}
	_, err := scopeOf(list)
	return err
}

// scopeOf says what a list is complete for, or why it cannot be used: a list with a critical
// extension that is not understood says nothing about who is not on it (RFC 5280 sections 5.2 and
// 5.3).
func scopeOf(list *x509.RevocationList) (s scope, err error) {
	for _, ext := range list.Extensions {
		switch {
		case ext.Id.Equal(oidIssuingDistributionPoint):
			if s, err = parseScope(ext.Value); err != nil {
				return s, err
			}
		case ext.Critical:
			return s, fmt.Errorf("it has the critical extension %s, which is not known", ext.Id)
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, ext := range entry.Extensions {
			if ext.Critical && ext.Id.Equal(oidCertificateIssuer) {
				return s, errors.New("it is an indirect list, of certificates of other issuers; use the lists of their own")
			} else if ext.Critical {
				return s, fmt.Errorf("an entry has the critical extension %s, which is not known", ext.Id)
			}
		}
	}
	return s, nil
}

// parseScope reads an IssuingDistributionPoint.
func parseScope(der []byte) (s scope, err error) {
	input := cryptobyte.String(der)
	var point, name cryptobyte.String
	malformed := errors.New("its issuing distribution point is malformed")
	if !input.ReadASN1(&point, cryptobyteasn1.SEQUENCE) || !input.Empty() {
		return s, malformed
	}
	var hasName bool
	if !point.ReadOptionalASN1(&name, &hasName, cryptobyteasn1.Tag(0).Constructed().ContextSpecific()) {
		return s, malformed
	}
	if hasName {
		if s.uris, err = urisOf(name); err != nil {
			return s, malformed
		}
	}
	for tag := cryptobyteasn1.Tag(1); tag <= 5; tag++ {
		var value cryptobyte.String
		var present bool
		if !point.ReadOptionalASN1(&value, &present, tag.ContextSpecific()) {
			return s, malformed
		}
		set := present && !slices.Equal(value, []byte{0}) // a BOOLEAN, but for the reasons
		switch {
		case tag == 1:
			s.users = set
		case tag == 2:
			s.cas = set
		case tag == 3 && present:
			return s, errors.New("it has only some of the reasons for a revocation; use a list of all")
		case tag == 4 && set:
			return s, errors.New("it is an indirect list, of certificates of other issuers; use the lists of their own")
		case tag == 5 && set:
			return s, errors.New("it is a list of attribute certificates, which TLS does not use")
		}
	}
	if !point.Empty() || s.users && s.cas {
		return s, malformed
	}
	return s, nil
}

// urisOf reads the URIs of a DistributionPointName. Other forms of names select nothing here.
func urisOf(name cryptobyte.String) (string, error) {
	var full, general cryptobyte.String
	var present bool
	if !name.ReadOptionalASN1(&full, &present, cryptobyteasn1.Tag(0).Constructed().ContextSpecific()) {
		return "", errors.New("malformed")
	}
	var uris []string
	for present && !full.Empty() {
		var tag cryptobyteasn1.Tag
		if !full.ReadAnyASN1(&general, &tag) {
			return "", errors.New("malformed")
		}
		if tag == cryptobyteasn1.Tag(6).ContextSpecific() {
			uris = append(uris, string(general))
		}
	}
	slices.Sort(uris)
	return strings.Join(uris, " "), nil
}

// covers says whether who is not on the list is not revoked. A certificate without distribution
// points is covered by whatever list its issuer has signed.
func (s scope) covers(cert *x509.Certificate) bool {
	if s.future || s.users && cert.IsCA || s.cas && !cert.IsCA {
		return false
	}
	if s.uris == "" || len(cert.CRLDistributionPoints) == 0 {
		return true
	}
	return slices.ContainsFunc(strings.Fields(s.uris), func(uri string) bool { return slices.Contains(cert.CRLDistributionPoints, uri) })
}
