package acme

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// dnsPort is the port of name servers. Tests use another.
var dnsPort = "53"

const (
	// dnsQuery limits one query to one name server.
	dnsQuery = 10 * time.Second

	// maxAliases limits a chain of CNAME records.
	maxAliases = 8
)

// resolver returns a resolver that asks the given servers in turn, or those of the system.
func resolver(servers ...string) *net.Resolver {
	if len(servers) == 0 {
		return net.DefaultResolver
	}
	var next atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, servers[int(next.Add(1))%len(servers)])
	}}
}

// ask looks up a name with a resolver. It returns the zero value if there are no such records.
func ask[T any](ctx context.Context, name string, lookup func(context.Context, string) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, dnsQuery)
	defer cancel()
	answer, err = lookup(ctx, name+".")
	var none *net.DNSError
	if errors.As(err, &none) && none.IsNotFound {
		return answer, nil
	}
	return answer, err
}

// cname returns the target of the CNAME record of a name, or the name itself if there is none.
func (s *state) cname(ctx context.Context, name string) (string, error) {
	target, err := ask(ctx, name, resolver(s.o.DNSServers...).LookupCNAME)
	return cmp.Or(strings.ToLower(strings.TrimSuffix(target, ".")), name), err
}

// alias follows the CNAME records of a name.
func (s *state) alias(ctx context.Context, name string) (string, error) {
	for range maxAliases {
		target, err := s.cname(ctx, name)
		if err != nil || target == name {
			return target, err
		}
		name = target
	}
	return "", fmt.Errorf("more than %d CNAME records lead from one to the next", maxAliases)
}

// zone is a DNS zone with its name servers.
type zone struct {
	name    string
	servers []string // host:port
}

// findZone finds the zone of a name: the name itself, or the closest parent, that has NS records.
func (s *state) findZone(ctx context.Context, name string) (zone, error) {
	r := resolver(s.o.DNSServers...)
	for at := name; strings.Contains(at, "."); _, at, _ = strings.Cut(at, ".") {
		if target, err := s.cname(ctx, at); err == nil && target != at {
			continue // the NS records of an alias are those of its target
		}
		servers, err := ask(ctx, at, r.LookupNS)
		switch {
		case len(servers) > 0:
			z := zone{name: at}
			for _, server := range servers {
				z.servers = append(z.servers, net.JoinHostPort(strings.TrimSuffix(server.Host, "."), dnsPort))
			}
			slices.Sort(z.servers)
			return z, nil
		case err != nil:
			return zone{}, fmt.Errorf("looking for the zone of %s: %w", name, err)
		}
	}
	return zone{}, fmt.Errorf("no zone is found for %s: no name above it has NS records", name)
}

// awaitTXT waits until every answering name server of a zone has a TXT record, since a CA may ask
// any of them.
func (s *state) awaitTXT(ctx context.Context, z zone, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.DNSTimeout)
	defer cancel()
	servers := s.o.DNSServers
	if len(servers) == 0 {
		servers = z.servers
	}
	began := time.Now()
	for wait := 200 * time.Millisecond; ; wait = min(wait*3/2, 5*time.Second) {
		have, without, silent := 0, "", error(nil)
		for _, server := range servers {
			values, err := ask(ctx, name, resolver(server).LookupTXT)
			switch {
			case err != nil:
				silent = fmt.Errorf("%s: %w", server, err)
			case slices.Contains(values, value):
				have++
			default:
				without = server
			}
		}
		if have > 0 && without == "" && (silent == nil || time.Since(began) > dnsQuery) {
			return nil
		}
		sleep(ctx, wait)
		if ctx.Err() == nil {
			continue
		}
		if without != "" {
			silent = fmt.Errorf("%s does not have it", without)
		}
		return fmt.Errorf("the TXT record %s was written by the DNS provider and is not served after %v: %w", name, time.Since(began).Round(time.Second), silent)
	}
}
