package certmanager

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
)

// revocations answers whether a certificate is on a list of its issuer. It is built
// once for a material and only read afterwards.
type revocations struct {
	lists    map[string][]*revocationList // by the raw name of the issuer
	issuers  []*x509.Certificate          // who may have signed lists
	fresh    bool                         // a list that is out of date refuses everyone
	warnings []error                      // about lists that are not used

	// made has each list that was used, by what it was made of: it is made once, also where
	// something else changes.
	made map[*x509.RevocationList]*revocationList

	anchors sync.Map // whether a CA that a chain ends with is revoked: an error or nil, by its raw bytes
}

// revocationList is one list whose issuer and signature were checked.
type revocationList struct {
	issuer  *x509.Certificate
	list    *x509.RevocationList
	scope   scope
	revoked map[string]time.Time // by serial, when it was revoked
	entries [sha256.Size]byte    // stands for the serials
}

// maxCRLSkew is how far in the future a list may be dated.
const maxCRLSkew = 5 * time.Minute

// newRevocations checks the lists against the certificates of possible issuers. Of several lists of
// one issuer and one scope the newest counts. A list of an unknown issuer says nothing about anyone
// here: it is left out. What previous knows of a list is not found out again.
func newRevocations(lists []*x509.RevocationList, issuers []*x509.Certificate, fresh bool, now time.Time, previous *revocations) (*revocations, error) {
	r := &revocations{lists: make(map[string][]*revocationList), issuers: issuers, fresh: fresh, made: make(map[*x509.RevocationList]*revocationList)}
	for _, list := range lists {
		if l := previous.find(list, issuers); l != nil {
			r.use(l, now)
			continue
		}
		issuer, err := issuerOf(list, issuers)
		if err != nil {
			return nil, err
		}
		if issuer == nil {
			r.warn("revocation list of %.200q: its issuer is unknown, so it is not used; if it should be, add the issuer's certificate to CRLIssuers", list.Issuer)
			continue
		}
		if isDelta(list) {
			r.warn("revocation list of %s: it is a delta list, which is not used", describe(issuer))
			continue
		}
		scope, err := scopeOf(list)
		if err != nil {
			return nil, fmt.Errorf("revocation list of %s: %w: %w", describe(issuer), ErrInvalid, err)
		}
		l := &revocationList{issuer: issuer, list: list, scope: scope, revoked: revokedIn(list)}
		l.entries = sumOfSerials(l.revoked)
		r.use(l, now)
	}
	return r, nil
}

// find returns what was made of a list before, if its issuer is still one.
func (r *revocations) find(list *x509.RevocationList, issuers []*x509.Certificate) *revocationList {
	if r == nil || r.made[list] == nil {
		return nil
	}
	known := *r.made[list]
	if !slices.ContainsFunc(issuers, func(issuer *x509.Certificate) bool { return sameIssuer(issuer, known.issuer) }) {
		return nil
	}
	return &known
}

// use adds a list whose signature holds.
func (r *revocations) use(l *revocationList, now time.Time) {
	r.made[l.list] = l
	// One dated in the future is beside the list of today, whose place it must not take.
	if l.scope.future = l.list.ThisUpdate.Sub(now) > maxCRLSkew; l.scope.future {
		r.warn("revocation list of %s: it is dated %s, in the future of this machine's clock", describe(l.issuer), l.list.ThisUpdate.UTC().Format(time.RFC3339))
	}
	r.add(l)
}

func (r *revocations) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Errorf(format, args...))
}

func (r *revocations) add(l *revocationList) {
	name := string(l.issuer.RawSubject)
	for i, other := range r.lists[name] {
		if sameIssuer(other.issuer, l.issuer) && other.scope == l.scope {
			if newer(l.list, other.list) {
				r.lists[name][i] = l
			}
			return
		}
	}
	r.lists[name] = append(r.lists[name], l)
}

// newer says whether a list replaces another of the same issuer and scope.
func newer(list, other *x509.RevocationList) bool {
	if !list.ThisUpdate.Equal(other.ThisUpdate) || list.Number == nil || other.Number == nil {
		return list.ThisUpdate.After(other.ThisUpdate)
	}
	return list.Number.Cmp(other.Number) > 0
}

// sameIssuer: an issuer is a name and a key, whatever its certificate.
func sameIssuer(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// of returns the lists of an issuer.
func (r *revocations) of(issuer *x509.Certificate) (all []*revocationList) {
	for _, l := range r.lists[string(issuer.RawSubject)] {
		if sameIssuer(l.issuer, issuer) {
			all = append(all, l)
		}
	}
	return all
}

// issuerOf returns who has signed a list, nil if that is nobody known. A list that claims to be of
// a known key and is not is an error: it may be the list of a CA in service, damaged.
func issuerOf(list *x509.RevocationList, issuers []*x509.Certificate) (*x509.Certificate, error) {
	known := false
	for _, issuer := range issuers {
		if !bytes.Equal(issuer.RawSubject, list.RawIssuer) {
			continue
		}
		if list.CheckSignatureFrom(issuer) == nil {
			return issuer, nil
		}
		otherKey := len(list.AuthorityKeyId) > 0 && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(list.AuthorityKeyId, issuer.SubjectKeyId)
		known = known || !otherKey
	}
	if known {
		return nil, fmt.Errorf("revocation list of %.200q: %w: its signature is not the issuer's", list.Issuer, ErrInvalid)
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

// sumOfSerials covers the entries and not the list: a list that is issued again every hour with the
// same entries does not end every session.
func sumOfSerials(revoked map[string]time.Time) [sha256.Size]byte {
	h := sha256.New()
	for _, serial := range slices.Sorted(maps.Keys(revoked)) {
		h.Write(binary.AppendUvarint(nil, uint64(len(serial))))
		h.Write([]byte(serial))
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// check judges every certificate of a chain. The last is trusted by itself, but not if another CA
// has revoked it.
func (r *revocations) check(chain []*x509.Certificate, now time.Time) error {
	if len(r.lists) == 0 {
		return nil
	}
	for i := range len(chain) - 1 {
		if err := r.checkOne(chain[i], chain[i+1], now); err != nil {
			return err
		}
	}
	return r.checkAnchor(chain[len(chain)-1])
}

func (r *revocations) checkOne(cert, issuer *x509.Certificate, now time.Time) error {
	for _, l := range r.lists[string(issuer.RawSubject)] {
		if !sameIssuer(l.issuer, issuer) {
			continue
		}
		if when, ok := l.revoked[string(cert.SerialNumber.Bytes())]; ok {
			return fmt.Errorf("%w: %s was revoked by %s on %s", ErrRevoked, describe(cert), describe(issuer), when.Format(time.RFC3339))
		}
		if r.fresh && l.scope.covers(cert) && l.outOfDate(now) {
			return fmt.Errorf("%w: that of %s ended %s", ErrCRLOutOfDate, describe(issuer), l.list.NextUpdate.Format(time.RFC3339))
		}
	}
	return nil
}

// checkAnchor judges a CA that chains end with: openssl verify -crl_check_all refuses a chain whose
// CA another one has revoked, although the CA is in the bundle.
func (r *revocations) checkAnchor(ca *x509.Certificate) error {
	if bytes.Equal(ca.RawIssuer, ca.RawSubject) {
		return nil
	}
	known, ok := r.anchors.Load(string(ca.Raw))
	if !ok {
		known = r.revokedAnchor(ca, 0)
		r.anchors.Store(string(ca.Raw), known) // of the CAs in the bundles alone
	}
	err, _ := known.(error)
	return err
}

// maxPathLength bounds the way up from a CA that another one has issued.
const maxPathLength = 10

// revokedAnchor looks for a list that has the CA, or one of those above it.
func (r *revocations) revokedAnchor(ca *x509.Certificate, depth int) error {
	if bytes.Equal(ca.RawIssuer, ca.RawSubject) || depth > maxPathLength {
		return nil
	}
	for _, l := range r.lists[string(ca.RawIssuer)] {
		if when, ok := l.revoked[string(ca.SerialNumber.Bytes())]; ok && ca.CheckSignatureFrom(l.issuer) == nil {
			return fmt.Errorf("%w: %s was revoked by %s on %s", ErrRevoked, describe(ca), describe(l.issuer), when.Format(time.RFC3339))
		}
	}
	var revoked error
	for _, issuer := range r.issuers {
		if bytes.Equal(issuer.RawSubject, ca.RawIssuer) && ca.CheckSignatureFrom(issuer) == nil {
			if revoked = r.revokedAnchor(issuer, depth+1); revoked == nil {
				return nil // where an issuer has several certificates, one that holds is enough
			}
		}
	}
	return revoked
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
	slices.SortFunc(all, func(a, b *revocationList) int { return bytes.Compare(a.list.Raw, b.list.Raw) })
	return all
}

// newCRLWarnings are about lists that are not used, as far as the previous set has not told the
// same.
func (s *snapshot) newCRLWarnings(previous *snapshot) (all []error) {
	told := map[string]bool{}
	if previous != nil {
		for _, warning := range previous.trust.crls.warnings {
			told[warning.Error()] = true
		}
	}
	for _, warning := range s.trust.crls.warnings {
		if !told[warning.Error()] && len(all) < maxCRLWarnings {
			all = append(all, warning)
		}
		told[warning.Error()] = true
	}
	return all
}

// maxCRLWarnings bounds what one set tells of lists.
const maxCRLWarnings = 20
