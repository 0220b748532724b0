package acmetest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libdns/libdns"
)

// Provider is a libdns provider for the records of a [Server]'s name server. Its methods may be
// called from any goroutine.
type Provider struct {
	server *Server

	mu     sync.Mutex // guards all below
	delay  time.Duration
	err    error
	lie    bool
	spread time.Duration
	zones  []string
}

// Provider returns a libdns provider: RecordAppender, RecordDeleter and RecordGetter.
func (s *Server) Provider() *Provider { return &Provider{server: s} }

// Slow delays every call.
func (p *Provider) Slow(delay time.Duration) { p.set(func() { p.delay = delay }) }

// Fail makes every call return err, until it is called with nil.
func (p *Provider) Fail(err error) { p.set(func() { p.err = err }) }

// Lie makes calls succeed without doing anything.
func (p *Provider) Lie(lie bool) { p.set(func() { p.lie = lie }) }

// Spread sets how long after a call its record appears in the name server.
func (p *Provider) Spread(after time.Duration) { p.set(func() { p.spread = after }) }

// Zones returns the zones of the calls so far.
func (p *Provider) Zones() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.zones)
}

func (p *Provider) set(edit func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit()
}

// AppendRecords implements libdns.RecordAppender.
func (p *Provider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.change(ctx, zone, records, func(values []string, value string) []string { return append(values, value) })
}

// DeleteRecords implements libdns.RecordDeleter.
func (p *Provider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.change(ctx, zone, records, func(values []string, value string) []string {
		return slices.DeleteFunc(values, func(v string) bool { return v == value })
	})
}

// GetRecords implements libdns.RecordGetter.
func (p *Provider) GetRecords(_ context.Context, zone string) ([]libdns.Record, error) {
	var all []libdns.Record
	for name, values := range p.server.TXT() {
		if zoneOf(name) == canonical(zone) {
			for _, value := range values {
				all = append(all, libdns.TXT{Name: libdns.RelativeName(name, zone), Text: value})
			}
		}
	}
	return all, nil
}

func (p *Provider) change(ctx context.Context, zone string, records []libdns.Record, edit func(values []string, value string) []string) error {
	p.mu.Lock()
	delay, err, lie, spread := p.delay, p.err, p.lie, p.spread
	p.zones = append(p.zones, zone)
	p.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil || lie {
		return err
	}
	do := func() {
		p.server.dns.mu.Lock()
		defer p.server.dns.mu.Unlock()
		for _, record := range records {
			rr := record.RR()
			name := canonical(libdns.AbsoluteName(rr.Name, zone))
			if values := edit(p.server.dns.txt[name], rr.Data); len(values) > 0 {
				p.server.dns.txt[name] = values
			} else {
				delete(p.server.dns.txt, name)
			}
		}
	}
	if spread == 0 {
		do()
		return nil
	}
	time.AfterFunc(spread, do)
	return nil
}
