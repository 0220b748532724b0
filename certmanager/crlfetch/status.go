package crlfetch

import (
	"slices"
	"strings"
	"time"

	"github.com/ergotls/ergotls/internal/dn"
)

// ListStatus is the state of a list, for metrics and status pages.
type ListStatus struct {
	URL string // where it is fetched from, without its password

	// Issuer, ThisUpdate and NextUpdate are those of the list in use, and Entries the number of its
	// entries. Issuer is empty while there is no list. NextUpdate is zero if the list has none. The
	// age of a list is the time since ThisUpdate.
	Issuer                 string
	ThisUpdate, NextUpdate time.Time
	Entries                int

	// Asked is the end of the last request for the list, zero if there was none. Err is the reason why
	// the request returned no usable list, or why the list could not be written to Dir; nil on
	// success.
	Asked time.Time
	Err   error
}

// Lists returns the state of each list, sorted by URL. Any goroutine may call it.
func (s *Source) Lists() []ListStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []ListStatus
	for _, l := range s.lists {
		all = append(all, l.status())
	}
	slices.SortFunc(all, func(a, b ListStatus) int { return strings.Compare(a.URL, b.URL) })
	return all
}

func (l *list) status() ListStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	status := ListStatus{URL: l.name, Asked: l.asked, Err: l.err}
	if l.crl != nil {
		status.Issuer, status.Entries = dn.String(l.crl.Issuer), len(l.crl.RevokedCertificateEntries)
		status.ThisUpdate, status.NextUpdate = l.crl.ThisUpdate, l.crl.NextUpdate
	}
	return status
}
