// Package rfc2136 is an acme.DNSProvider that writes the records of DNS-01 challenges by dynamic
// updates (RFC 2136), which BIND, Knot, PowerDNS and Windows DNS accept. Start with [Provider]:
//
//	source := &acme.Source{Domains: []string{"*.example.com"}, DNS: &rfc2136.Provider{
//		Server: "ns1.example.com:53", KeyName: "acme.", Secret: os.Getenv("TSIG_SECRET"),
//	}}
//
// This package does not look up records and does not support GSS-TSIG.
package rfc2136

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/libdns/libdns"
	"github.com/miekg/dns"
)

// Provider updates the zones of a name server. Its methods may be called from any
// goroutine.
type Provider struct {
	// Server is the address, host:port, of the primary name server of the zones. The default port
	// is 53.
	Server string

	// KeyName and Secret are the TSIG key (RFC 8945) that signs updates; the secret is in base64,
	// as tsig-keygen prints it. If both are empty, updates are not signed; only a server on this
	// machine should accept such updates.
	KeyName, Secret string

	// Algorithm is the algorithm of the key. Empty is hmac-sha256.
	Algorithm string
}

// timeout limits one update.
const timeout = 10 * time.Second

// AppendRecords implements libdns.RecordAppender.
func (p *Provider) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.update(ctx, zone, records, (*dns.Msg).Insert)
}

// DeleteRecords implements libdns.RecordDeleter. It removes records with these values, and keeps
// others of the same name.
func (p *Provider) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, p.update(ctx, zone, records, (*dns.Msg).Remove)
}

func (p *Provider) update(ctx context.Context, zone string, records []libdns.Record, edit func(*dns.Msg, []dns.RR)) error {
	server, err := p.server()
	if err != nil {
		return err
	}
	m := new(dns.Msg).SetUpdate(dns.Fqdn(zone))
	for _, record := range records {
		rr, err := toRR(record.RR(), zone)
		if err != nil {
			return err
		}
		edit(m, []dns.RR{rr})
	}
	client := &dns.Client{Net: "tcp", Timeout: timeout}
	if p.KeyName != "" {
		algorithm := dns.HmacSHA256
		if p.Algorithm != "" {
			algorithm = dns.Fqdn(p.Algorithm)
		}
		client.TsigSecret = map[string]string{dns.Fqdn(p.KeyName): p.Secret}
		m.SetTsig(dns.Fqdn(p.KeyName), algorithm, 300, time.Now().Unix())
	}
	reply, _, err := client.ExchangeContext(ctx, m, server)
	switch {
	case reply != nil && reply.Rcode != dns.RcodeSuccess: // even if the answer is not signed, as from a server that does not know the key
		return fmt.Errorf("rfc2136: updating %s at %s: the server says %s%s", zone, server, dns.RcodeToString[reply.Rcode], hint(reply.Rcode))
	case err != nil:
		return fmt.Errorf("rfc2136: updating %s at %s: %w", zone, server, err)
	}
	return nil
}

// hint returns what a response code usually means.
func hint(rcode int) string {
	switch rcode {
	case dns.RcodeNotAuth:
		return ": it does not know the key, or is not the primary server of the zone"
	case dns.RcodeRefused:
		return ": the key may not update the zone (allow-update or update-policy)"
	}
	return ""
}

func (p *Provider) server() (string, error) {
	if p.Server == "" {
		return "", errors.New("rfc2136: Provider.Server is not set")
	}
	if (p.KeyName == "") != (p.Secret == "") {
		return "", errors.New("rfc2136: only one of Provider.KeyName and Provider.Secret is set")
	}
	if _, err := base64.StdEncoding.DecodeString(p.Secret); err != nil {
		return "", errors.New("rfc2136: Provider.Secret is not base64")
	}
	if _, _, err := net.SplitHostPort(p.Server); err != nil {
		return net.JoinHostPort(p.Server, "53"), nil
	}
	return p.Server, nil
}

// toRR converts a record to miekg/dns. TXT is converted here, because its text is not in the form
// of a zone file.
func toRR(r libdns.RR, zone string) (dns.RR, error) {
	name := dns.Fqdn(libdns.AbsoluteName(r.Name, dns.Fqdn(zone)))
	if r.Type == "TXT" {
		txt := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(r.TTL / time.Second)}}
		text := r.Data
		escape := strings.NewReplacer(`\`, `\\`).Replace // miekg/dns keeps texts in the form of zone files
		for ; len(text) > 255; text = text[255:] {
			txt.Txt = append(txt.Txt, escape(text[:255]))
		}
		txt.Txt = append(txt.Txt, escape(text))
		return txt, nil
	}
	rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", name, uint32(r.TTL/time.Second), r.Type, r.Data))
	if err != nil {
		return nil, fmt.Errorf("rfc2136: the record %s: %w", name, err)
	}
	return rr, nil
}
