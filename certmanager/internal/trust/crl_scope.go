package trust

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// scope is the part of an issuer's certificates that a list is complete for (RFC 5280 section
// 5.2.5). The zero scope is all.
type scope struct {
	users, cas bool   // only end-entity certificates; only CA certificates
	uris       string // only certificates with one of these distribution points, separated by spaces; empty: any
	names      string // distribution points other than URIs, in DER: they distinguish parts of a list
	future     bool   // the list is dated in the future
}

// isDelta reports whether a list has only changes, even if it is not marked as it should be (RFC
// 5280 section 5.2.4).
func isDelta(list *x509.RevocationList) bool {
	for _, ext := range list.Extensions {
		if ext.Id.Equal(oidDeltaCRLIndicator) {
			return true
		}
	}
	return false
}

// CheckList returns the reason why a list cannot be used, whoever signed it.
func CheckList(list *x509.RevocationList) error {
	if isDelta(list) {
		return errors.New("it is a delta list, which is not used: give the address of the full list")
	}
	_, err := scopeOf(list)
	return err
}

// scopeOf returns the scope of a list, or an error if it cannot be used: a list with an unknown
// critical extension tells nothing about certificates that are not on it (RFC 5280 sections 5.2 and
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
			if ext.Critical {
				return s, fmt.Errorf("an entry has the critical extension %s, which is not known", ext.Id)
			}
		}
	}
	return s, nil
}

// distributionPoint is an IssuingDistributionPoint (RFC 5280 section 5.2.5).
type distributionPoint struct {
	Name struct {
		Full     []asn1.RawValue `asn1:"optional,tag:0"`
		Relative asn1.RawValue   `asn1:"optional,tag:1"`
	} `asn1:"optional,tag:0"`
	Users      bool           `asn1:"optional,tag:1"`
	CAs        bool           `asn1:"optional,tag:2"`
	Reasons    asn1.BitString `asn1:"optional,tag:3"`
	Indirect   bool           `asn1:"optional,tag:4"`
	Attributes bool           `asn1:"optional,tag:5"`
	Unknown    asn1.RawValue  `asn1:"optional"`
}

// parseScope reads an IssuingDistributionPoint.
func parseScope(der []byte) (s scope, err error) {
	var point distributionPoint
	rest, err := asn1.Unmarshal(der, &point)
	switch {
	case err != nil || len(rest)+len(point.Unknown.FullBytes) > 0 || point.Users && point.CAs:
		return s, errors.New("its issuing distribution point is malformed")
	case len(point.Reasons.Bytes) > 0 || point.Indirect || point.Attributes:
		return s, errors.New("it is an indirect list, or has only some reasons for a revocation or attribute certificates; use the full list of the issuer")
	}
	var uris []string
	names := []string{string(point.Name.Relative.FullBytes)}
	for _, name := range point.Name.Full {
		if name.Class == asn1.ClassContextSpecific && name.Tag == 6 {
			uris = append(uris, string(name.Bytes))
		} else {
			names = append(names, string(name.FullBytes))
		}
	}
	slices.Sort(uris)
	slices.Sort(names)
	return scope{users: point.Users, cas: point.CAs, uris: strings.Join(uris, " "), names: strings.Join(names, "")}, nil
}

// PartName returns a name for the list of an issuer, or for a part of it.
func PartName(list *x509.RevocationList) string {
	name := CanonicalName(list.RawIssuer) + string(list.AuthorityKeyId)
	for _, ext := range list.Extensions {
		if ext.Id.Equal(oidIssuingDistributionPoint) {
			name += string(ext.Value)
		}
	}
	return name
}

// SamePart reports whether a list fetched from an address has the same issuer as the one from there
// before, and the same scope or a larger one.
func SamePart(before, list *x509.RevocationList, address string) bool {
	was, err := scopeOf(before)
	is, failed := scopeOf(list)
	if err != nil || failed != nil || was.users != is.users || was.cas != is.cas || !SameName(before.RawIssuer, list.RawIssuer) {
		return false
	}
	whole := is.uris == "" && is.names == ""
	known := append(strings.Fields(was.uris), address)
	return whole || is.names != "" && is.names == was.names ||
		slices.ContainsFunc(strings.Fields(is.uris), func(uri string) bool { return slices.Contains(known, uri) })
}

// covers reports whether a certificate that is not on the list is not revoked. A certificate
// without distribution points is covered by any list of its issuer.
func (s scope) covers(cert *x509.Certificate) bool {
	if s.future || s.users && cert.IsCA || s.cas && !cert.IsCA {
		return false
	}
	if s.uris == "" || len(cert.CRLDistributionPoints) == 0 {
		return true
	}
	return slices.ContainsFunc(strings.Fields(s.uris), func(uri string) bool { return slices.Contains(cert.CRLDistributionPoints, uri) })
}
