package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ergotls/ergotls/internal/dn"
)

// Lists finds out whether a certificate is on a list of its issuer. It is made once and then only
// read.
type Lists struct {
	Warnings []error // about lists that are not used
	Fresh    bool    // an outdated list refuses every certificate of its issuer

	Begins time.Time // when a list dated in the future becomes current; zero without one

	lists   map[string][]*List             // by the canonical name of the issuer
	issuers map[string][]*x509.Certificate // CAs that may have signed lists, by canonical name

	// made caches each used list by its source, so that it is not processed again after other changes.
	made map[*x509.RevocationList]*List

	anchors sync.Map // results of revokedAnchor by the raw bytes of the CA
}

// List is one list whose issuer and signature were checked.
type List struct {
	Issuer  *x509.Certificate    // the CA that signed it
	CRL     *x509.RevocationList // as parsed
	Revoked map[string]time.Time // time of revocation, by serial number
	Entries [sha256.Size]byte    // a hash of the serial numbers
	scope   scope
}

// maxCRLSkew is how far in the future a list may be dated.
const maxCRLSkew = 5 * time.Minute

// NewLists checks the lists against the certificates of possible issuers. Of several lists of one
// issuer and one scope the newest counts. A list of an unknown issuer is skipped, because it
// concerns no certificate here. Results for lists in previous are reused.
func NewLists(lists []*x509.RevocationList, issuers []*x509.Certificate, fresh bool, now time.Time, previous *Lists) (*Lists, error) {
	r := &Lists{lists: make(map[string][]*List), issuers: make(map[string][]*x509.Certificate), Fresh: fresh, made: make(map[*x509.RevocationList]*List)}
	for _, issuer := range issuers {
		name := CanonicalName(issuer.RawSubject)
		r.issuers[name] = append(r.issuers[name], issuer)
	}
	for _, list := range lists {
		named := r.issuers[CanonicalName(list.RawIssuer)]
		if l := previous.find(list, named); l != nil {
			r.use(l, now)
			continue
		}
		issuer, err := issuerOf(list, named)
		if err != nil && !previous.knew(list) { // else the CA of that name had another key before
			return nil, err
		}
		if issuer == nil {
			r.warn("revocation list of %.200q: its issuer is unknown, so it is not used; if it should be, add the issuer's certificate to CRLIssuers", dn.String(list.Issuer))
			continue
		}
		if isDelta(list) {
			r.warn("revocation list of %s: it is a delta list, which is not used", Describe(issuer))
			continue
		}
		scope, err := scopeOf(list)
		if err != nil {
			return nil, fmt.Errorf("revocation list of %s: %w: %w", Describe(issuer), ErrInvalid, err)
		}
		l := &List{Issuer: issuer, CRL: list, scope: scope, Revoked: revokedIn(list)}
		l.Entries = sumOfSerials(l.Revoked)
		r.use(l, now)
	}
	return r, nil
}

// find returns the previous result for a list, if its issuer is still among issuers.
func (r *Lists) find(list *x509.RevocationList, issuers []*x509.Certificate) *List {
	if !r.knew(list) {
		return nil
	}
	known := *r.made[list]
	if !slices.ContainsFunc(issuers, func(issuer *x509.Certificate) bool { return sameIssuer(issuer, known.Issuer) }) {
		return nil
	}
	return &known
}

// knew reports whether the signature of a list was verified before.
func (r *Lists) knew(list *x509.RevocationList) bool { return r != nil && r.made[list] != nil }

// use adds a list with a valid signature.
func (r *Lists) use(l *List, now time.Time) {
	r.made[l.CRL] = l
	// A list dated in the future is kept beside the current one and must not replace it. RFC 5280 does
	// not define its meaning. Its entries revoke, since the CA has signed them and our clock may be
	// slow. It tells nothing about certificates that are not on it.
	if l.scope.future = l.CRL.ThisUpdate.Sub(now) > maxCRLSkew; l.scope.future {
		if begins := l.CRL.ThisUpdate.Add(-maxCRLSkew); r.Begins.IsZero() || begins.Before(r.Begins) {
			r.Begins = begins
		}
		r.warn("revocation list of %s: it is dated %s, in the future of this machine's clock", Describe(l.Issuer), l.CRL.ThisUpdate.UTC().Format(time.RFC3339))
	}
	r.add(l)
}

func (r *Lists) warn(format string, args ...any) {
	r.Warnings = append(r.Warnings, fmt.Errorf(format, args...))
}

func (r *Lists) add(l *List) {
	name := CanonicalName(l.Issuer.RawSubject)
	for i, other := range r.lists[name] {
		if sameIssuer(other.Issuer, l.Issuer) && other.scope == l.scope {
			if newer(l.CRL, other.CRL) {
				r.lists[name][i] = l
			}
			return
		}
	}
	r.lists[name] = append(r.lists[name], l)
}

// newer reports whether a list replaces another of the same issuer and scope.
func newer(list, other *x509.RevocationList) bool {
	if !list.ThisUpdate.Equal(other.ThisUpdate) || list.Number == nil || other.Number == nil {
		return list.ThisUpdate.After(other.ThisUpdate)
	}
	return list.Number.Cmp(other.Number) > 0
}

// sameIssuer reports whether two CAs have the same name and key, which identify an issuer.
func sameIssuer(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo) && SameName(a.RawSubject, b.RawSubject)
}

// of returns the lists of an issuer.
func (r *Lists) of(issuer *x509.Certificate) (all []*List) {
	for _, l := range r.lists[CanonicalName(issuer.RawSubject)] {
		if sameIssuer(l.Issuer, issuer) {
			all = append(all, l)
		}
	}
	return all
}

// issuerOf returns the issuer with the list's name that signed it, nil if there is none. It returns
// an error if the list names a known key but the signature is wrong: it may be a damaged list of a
// CA in service.
func issuerOf(list *x509.RevocationList, named []*x509.Certificate) (*x509.Certificate, error) {
	var why error
	for _, issuer := range named {
		err := list.CheckSignatureFrom(issuer)
		if err == nil {
			return issuer, nil
		}
		otherKey := len(list.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(list.AuthorityKeyId, issuer.SubjectKeyId)
		if !otherKey {
			why = err
		}
	}
	if why != nil {
		return nil, fmt.Errorf("revocation list of %.200q: %w: its signature is not the issuer's, or not accepted: %w", dn.String(list.Issuer), ErrInvalid, why)
	}
	return nil, nil
}

func revokedIn(list *x509.RevocationList) map[string]time.Time {
	revoked := make(map[string]time.Time, len(list.RevokedCertificateEntries))
	for _, entry := range list.RevokedCertificateEntries {
		revoked[string(entry.SerialNumber.Bytes())] = entry.RevocationTime
	}
	return revoked
}

// sumOfSerials is a hash of the entries, not the list, so that a list issued every hour with the
// same entries does not invalidate all sessions.
func sumOfSerials(revoked map[string]time.Time) [sha256.Size]byte {
	h := sha256.New()
	for _, serial := range slices.Sorted(maps.Keys(revoked)) {
		h.Write(binary.AppendUvarint(nil, uint64(len(serial))))
		h.Write([]byte(serial))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Begun reports whether a list that was dated in the future has become current.
func (r *Lists) Begun(now time.Time) bool { return !r.Begins.IsZero() && !now.Before(r.Begins) }

// OutOfDate reports whether a list is past its nextUpdate. A list without one never is.
func (l *List) OutOfDate(now time.Time) bool {
	return !l.CRL.NextUpdate.IsZero() && now.After(l.CRL.NextUpdate)
}

// All returns the lists in a stable order.
func (r *Lists) All() []*List {
	var all []*List
	for _, lists := range r.lists {
		all = append(all, lists...)
	}
	slices.SortFunc(all, func(a, b *List) int { return bytes.Compare(a.CRL.Raw, b.CRL.Raw) })
	return all
}

// Regressions returns an error for each list that was replaced by an older one since previous, or
// removed although its issuer is still among known: revoked peers are then accepted again.
func (r *Lists) Regressions(previous *Lists, known []*x509.Certificate) []error {
	var found []error
	for _, old := range previous.All() {
		all := r.of(old.Issuer)
		i := slices.IndexFunc(all, func(l *List) bool { return l.scope == old.scope })
		switch {
		case i >= 0 && all[i].CRL.ThisUpdate.Before(old.CRL.ThisUpdate):
			found = append(found, fmt.Errorf("the revocation list of %s was issued before the one that was in service", Describe(old.Issuer)))
		case i < 0 && slices.ContainsFunc(known, old.Issuer.Equal):
			found = append(found, fmt.Errorf("the revocation list of %s is no longer there", Describe(old.Issuer)))
		}
	}
	return found
}
