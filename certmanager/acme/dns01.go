package acme

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
)

// DNSProvider writes and removes records in the zones of a DNS provider: any of
// github.com/libdns.
type DNSProvider interface {
	libdns.RecordAppender
	libdns.RecordDeleter
}

const (
	// recordTTL is the TTL of records, for caches on the way to the CA.
	recordTTL = time.Minute

	// removeTimeout limits the removal of a record, including after a canceled attempt.
	removeTimeout = 30 * time.Second
)

// txtRecord is a record that was written or will be.
type txtRecord struct{ Zone, Name, Value string }

// recordKey returns the cache key for the record of a name, by which it is removed even after a
// crash.
func recordKey(n *name) string { return n.file() + "+dns-01" }

// presentDNS writes the record of a DNS-01 challenge and waits until it is served (RFC 8555 section
// 8.4).
func (s *state) presentDNS(ctx context.Context, challenge acme.Challenge, n *name) (remove func(), err error) {
	at, err := s.challengeName(ctx, n.base())
	if err != nil {
		return nil, err
	}
	z, err := s.findZone(ctx, at)
	if err != nil {
		return nil, err
	}
	if err := s.removeNoted(ctx, n); err != nil {
		return nil, err
	}
	record := txtRecord{z.name, at, challenge.DNS01KeyAuthorization()}
	data, _ := json.Marshal(record) // it has only strings
	if err := s.put(ctx, recordKey(n), data); err != nil {
		if s.storageOK.Store(false); !s.expiresSoon(n) {
			return nil, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, s.o.DNSTimeout)
	defer cancel()
	if err = s.give(limited, record, s.o.DNS.AppendRecords); err != nil {
		err = fmt.Errorf("the DNS provider did not write %s in the zone %s: %w", record.Name, record.Zone, err)
	} else {
		err = s.awaitTXT(ctx, z, record.Name, record.Value)
	}
	remove = func() {
		if err := s.removeRecord(ctx, n, record); err != nil {
			s.warn(n.text, err)
		}
	}
	if err != nil {
		remove() // it may have been written despite the error
		return nil, err
	}
	return remove, nil
}

// challengeName returns the DNS name for the record: the target of the alias if there is one,
// unless the alias comes from a wildcard, which does not apply to a name that has a record.
func (s *state) challengeName(ctx context.Context, base string) (string, error) {
	name := "_acme-challenge." + base
	target, err := s.cname(ctx, name)
	if err != nil || target == name {
		return name, err
	}
	if others, err := s.cname(ctx, strings.ToLower(rand.Text())+"."+base); err == nil && others == target {
		return name, nil
	}
	return s.alias(ctx, target)
}

// give passes a record to a method of the provider.
func (s *state) give(ctx context.Context, r txtRecord, method func(context.Context, string, []libdns.Record) ([]libdns.Record, error)) error {
	txt := libdns.TXT{Name: libdns.RelativeName(r.Name+".", r.Zone+"."), Text: r.Value, TTL: recordTTL}
	_, err := guard(ctx, &s.abandoned.dns, "DNS", func() ([]libdns.Record, error) {
		return method(ctx, r.Zone+".", []libdns.Record{txt})
	})
	return err
}

// noted returns the record of a name that a crash or a failed provider has left, nil if there is
// none.
func (s *state) noted(ctx context.Context, n *name) (record *txtRecord, err error) {
	data, err := s.get(ctx, recordKey(n))
	if isMiss(err) || err == nil && json.Unmarshal(data, &record) != nil {
		return nil, nil // an unreadable entry cannot be cleaned up
	}
	return record, err
}

// removeNoted removes it. If that is impossible, a name whose certificate expires soon does not
// wait for it, nor does one without a certificate.
func (s *state) removeNoted(ctx context.Context, n *name) error {
	record, err := s.noted(ctx, n)
	if err != nil && !s.expiresSoon(n) {
		return err
	}
	if record == nil {
		return nil
	}
	err = s.removeRecord(ctx, n, *record)
	if s.expiresSoon(n) || s.serving(n) == nil {
		s.emitOnce(certmanager.Warning, n, "record of dns-01", err)
		return nil
	}
	return err
}

// removeRecord removes the record of a name, even after ctx has ended.
func (s *state) removeRecord(ctx context.Context, n *name, record txtRecord) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if err := s.give(ctx, record, s.o.DNS.DeleteRecords); err != nil {
		return fmt.Errorf("the TXT record %s could not be removed, and is tried again before the next order: %w", record.Name, err)
	}
	return s.remove(ctx, recordKey(n))
}

// removeAtStart removes the record that an earlier run has left, unless another machine uses it.
func (s *state) removeAtStart(ctx context.Context, n *name) {
	if s.o.DNS == nil {
		return
	}
	if record, err := s.noted(ctx, n); err != nil || record == nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	unlock, err := s.lock(limited, s.cas[0].certKey(n))
	if err == nil {
		err = s.removeNoted(ctx, n)
		unlock()
	}
	if err != nil && ctx.Err() == nil {
		s.warn(n.text, err)
	}
}
