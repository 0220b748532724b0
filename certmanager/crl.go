package certmanager

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"maps"
	"slices"
	"time"
)

// revocations answers whether a certificate is on the list of its issuer. It is built
// once per snapshot and only read afterwards.
type revocations struct {
	lists map[string][]*revocationList // by the raw name of the issuer
	fresh bool                         // a list that is out of date refuses everyone
}

// revocationList is one list whose issuer and signature were checked.
type revocationList struct {
	issuer  *x509.Certificate
	list    *x509.RevocationList
	revoked map[string]time.Time // by serial, when it was revoked
	entries [sha256.Size]byte    // stands for the serials
}

var (
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
)

// newRevocations checks the lists against the certificates of possible issuers. Of
// several lists by one issuer the newest counts.
func newRevocations(lists []*x509.RevocationList, issuers []*x509.Certificate, fresh bool) (*revocations, error) {
	r := &revocations{lists: make(map[string][]*revocationList), fresh: fresh}
	for _, list := range lists {
		issuer, err := issuerOf(list, issuers)
		if err != nil {
			return nil, err
		}
		if kind := notFull(list); kind != "" {
			return nil, fmt.Errorf("revocation list of %s: %w: it is a list %s; use a full list", describe(issuer), ErrInvalid, kind)
		}
		l := &revocationList{issuer: issuer, list: list, revoked: revokedIn(list)}
		// The entries and not the list: a list that is issued again every hour
		// with the same entries does not end every session.
		l.entries = sha256.Sum256(fmt.Appendf(nil, "%q", slices.Sorted(maps.Keys(l.revoked))))
		r.add(l)
	}
	return r, nil
}

// notFull says what keeps a list from telling all that its issuer has revoked, if anything does.
func notFull(list *x509.RevocationList) string {
	for _, ext := range list.Extensions {
		switch {
		case ext.Id.Equal(oidDeltaCRLIndicator): // also where it is not critical, against RFC 5280 section 5.2.4
			return "of changes only"
		case !ext.Critical:
		case ext.Id.Equal(oidIssuingDistributionPoint):
			return "for a part of the issuer's certificates only"
		default:
			// RFC 5280 section 5.2: a list with a critical extension that is not
			// understood says nothing about who is not on it.
			return "with the unknown critical extension " + ext.Id.String()
		}
	}
	return ""
}

func (r *revocations) add(l *revocationList) {
	switch other := r.of(l.issuer); {
	case other == nil:
		r.lists[string(l.issuer.RawSubject)] = append(r.lists[string(l.issuer.RawSubject)], l)
	case l.list.ThisUpdate.After(other.list.ThisUpdate):
		*other = *l
	}
}

// of returns the list of an issuer, nil without one. An issuer is a name and a key.
func (r *revocations) of(issuer *x509.Certificate) *revocationList {
	for _, l := range r.lists[string(issuer.RawSubject)] {
		if bytes.Equal(l.issuer.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) {
			return l
		}
	}
	return nil
}

func issuerOf(list *x509.RevocationList, issuers []*x509.Certificate) (*x509.Certificate, error) {
	known := false
	for _, issuer := range issuers {
		if !bytes.Equal(issuer.RawSubject, list.RawIssuer) {
			continue
		}
		known = true
		if list.CheckSignatureFrom(issuer) == nil {
			return issuer, nil
		}
	}
	if known {
		return nil, fmt.Errorf("revocation list of %q: %w: its signature is not the issuer's", list.Issuer, ErrInvalid)
	}
	return nil, fmt.Errorf("revocation list of %q: %w: unknown issuer; add its certificate to ClientCAs, RootCAs or a served chain, or with Static to CRLIssuers",
		list.Issuer, ErrInvalid)
}

func revokedIn(list *x509.RevocationList) map[string]time.Time {
	revoked := make(map[string]time.Time, len(list.RevokedCertificateEntries))
	for _, entry := range list.RevokedCertificateEntries {
		revoked[string(entry.SerialNumber.Bytes())] = entry.RevocationTime
	}
	return revoked
}

// check judges every certificate of a chain but the root.
func (r *revocations) check(chain []*x509.Certificate, now time.Time) error {
	if len(r.lists) == 0 {
		return nil
	}
	for i := range len(chain) - 1 {
		if err := r.checkOne(chain[i], chain[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

func (r *revocations) checkOne(cert, issuer *x509.Certificate, now time.Time) error {
	l := r.of(issuer)
	if l == nil {
		return nil
	}
	if when, ok := l.revoked[string(cert.SerialNumber.Bytes())]; ok {
		return fmt.Errorf("%w: %s was revoked by %s on %s", ErrRevoked, describe(cert), describe(issuer), when.Format(time.RFC3339))
	}
	if r.fresh && l.outOfDate(now) {
		return fmt.Errorf("%w: that of %s ended %s", ErrCRLOutOfDate, describe(issuer), l.list.NextUpdate.Format(time.RFC3339))
	}
	return nil
}

// outOfDate: a list without nextUpdate never is.
func (l *revocationList) outOfDate(now time.Time) bool {
	return !l.list.NextUpdate.IsZero() && now.After(l.list.NextUpdate)
}

// all returns the lists in a stable order.
func (r *revocations) all() []*revocationList {
	var all []*revocationList
	for _, lists := range r.lists {
		all = append(all, lists...)
	}
	slices.SortFunc(all, func(a, b *revocationList) int { return bytes.Compare(a.issuer.Raw, b.issuer.Raw) })
	return all
}
