package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// persistSoon is how long before the expiry of a DNS-PERSIST-01 record a warning is given.
const persistSoon = 14 * 24 * time.Hour

// maxRecordRetry is how often a missing record is looked up.
const maxRecordRetry = time.Minute

// Record is a TXT record for DNS-PERSIST-01 (draft-ietf-acme-dns-persist). While it exists, anyone
// with the account key can order certificates for the name.
type Record struct {
	CA     string    // the directory URL of the CA
	Domain string    // the name, as in Domains
	Name   string    // the name of the record
	Value  string    // the required value
	Until  time.Time // when the existing record expires; zero if it does not
	Err    error     // what is wrong with the existing records; nil if one is right
}

// String returns the record as a line of a zone file.
func (r Record) String() string { return fmt.Sprintf("%s. IN TXT %s", r.Name, strconv.Quote(r.Value)) }

// record looks up the record of a name.
func (s *state) record(ctx context.Context, c *client, n *name) (Record, error) {
	r := Record{CA: c.ca.Directory, Domain: n.text, Name: "_validation-persist." + n.base()}
	issuers := c.meta.CAAIdentities
	if len(issuers) == 0 {
		return r, errors.New("dns-persist-01: the CA's directory does not say its name (caaIdentities)")
	}
	r.Value = acme.Challenge{}.DNSPersist01TXTRecordValue(c.account, issuers[0], s.wantsWildcard(n))
	if !s.o.PersistUntil.IsZero() {
		r.Value += fmt.Sprintf("; persistUntil=%d", s.o.PersistUntil.Unix())
	}
	values, err := ask(ctx, r.Name, resolver(s.o.DNSServers...).LookupTXT)
	if err != nil {
		return r, fmt.Errorf("dns-persist-01: looking for %s: %w", r.Name, err)
	}
	r.Until, r.Err = checkPersist(values, issuers, c.account.Location, n.wildcard(), clock.Now())
	return r, nil
}

// wantsWildcard reports whether one record should serve a name and the names below it.
func (s *state) wantsWildcard(n *name) bool {
	return n.wildcard() || slices.Contains(s.o.Domains, "*."+n.text)
}

// checkPersist checks whether one of the values of a record allows an account to order, and returns
// until when, or an error about the existing values.
func checkPersist(values, issuers []string, account string, wildcard bool, now time.Time) (until time.Time, err error) {
	err = errors.New("the record is missing")
	for _, value := range values {
		issuer, tags, ok := parsePersist(value)
		if !slices.Contains(issuers, issuer) {
			continue // another CA's
		}
		var end time.Time
		if text, ends := tags["persistuntil"]; ends {
			seconds, err := strconv.ParseInt(text, 10, 64)
			end, ok = time.Unix(seconds, 0), ok && err == nil
		}
		switch {
		case !ok:
			err = fmt.Errorf("the record %q is malformed", value)
		case tags["accounturi"] != account:
			err = fmt.Errorf("the record is for another account, %q", tags["accounturi"])
		case wildcard && !strings.EqualFold(tags["policy"], "wildcard"):
			err = fmt.Errorf("the record %q has no policy=wildcard", value)
		case !end.IsZero() && !now.Before(end):
			err = fmt.Errorf("the record ended on %s, as its persistUntil says", end.UTC().Format(time.RFC3339))
		default:
			return end, nil
		}
	}
	return time.Time{}, err
}

// parsePersist parses a value in the form of RFC 8659 section 4.2, in which a tag stands once.
func parsePersist(value string) (issuer string, tags map[string]string, ok bool) {
	parts := strings.Split(value, ";")
	issuer, tags, ok = strings.Trim(parts[0], " \t"), make(map[string]string), true
	for _, part := range parts[1:] {
		tag, text, hasValue := strings.Cut(part, "=")
		tag, text = strings.ToLower(strings.Trim(tag, " \t")), strings.Trim(text, " \t")
		_, twice := tags[tag]
		ok = ok && hasValue && tag != "" && !twice && !strings.ContainsAny(text, " \t")
		tags[tag] = text
	}
	return issuer, tags, ok
}

// preparePersist checks the record before an order.
func (s *state) preparePersist(ctx context.Context, c *client, n *name) error {
	r, err := s.record(ctx, c, n)
	if err != nil {
		return err
	}
	n.record.Store(&r)
	if r.Err != nil {
		return fmt.Errorf("dns-persist-01: %w; %w:\n\t%s", r.Err, errRecord, r)
	}
	var ends error
	if !r.Until.IsZero() && clock.Until(r.Until) < persistSoon {
		ends = fmt.Errorf("dns-persist-01: the record %s ends on %s; after that nothing can be renewed: replace it by one with a later persistUntil",
			r.Name, r.Until.UTC().Format(time.RFC3339))
	}
	s.emitOnce(certmanager.Warning, n, "record", ends)
	return nil
}

// Records returns the record of DNSPersist for each CA and each of the Domains except IP addresses,
// and whether it exists. It registers missing accounts but orders nothing. It may be called while
// the source is in use.
func (a *Source) Records(ctx context.Context) ([]Record, error) {
	o, err := a.ready()
	if err != nil {
		return nil, err
	}
	s := newState(o)
	s.ctx, s.changed, s.report = ctx, func() {}, func(certmanager.Event) {}
	defer func() {
		for _, c := range s.cas {
			c.network.CloseIdleConnections()
		}
	}()
	var all []Record
	for _, ca := range s.cas {
		c, err := ca.connect(ctx, true)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ca.host, err)
		}
		for _, domain := range o.Domains {
			if isAddress(domain) {
				continue
			}
			r, err := s.record(ctx, c, s.names[domain])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", ca.host, err)
			}
			all = append(all, r)
		}
	}
	return all, nil
}
