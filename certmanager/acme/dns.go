package acme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// dnsPort is where name servers are asked. Tests have another.
var dnsPort = "53"

const (
	// dnsQuery bounds one question to one name server.
	dnsQuery = 10 * time.Second

	// maxAliases bounds a chain of CNAME records.
	maxAliases = 8
)

// resolver asks a name server, or those of DNSServers in turn, or those of the system.
func resolver(servers ...string) *net.Resolver {
	if len(servers) == 0 {
		return net.DefaultResolver
	}
	var next atomic.Uint32
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, servers[int(next.Add(1))%len(servers)])
	}}
}

// lookupTXT returns the TXT records of a name, none if there are none.
func lookupTXT(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsQuery)
	defer cancel()
	values, err := r.LookupTXT(ctx, name+".")
	if isNotFound(err) {
		return nil, nil
	}
	return values, err
}

func isNotFound(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}

// cname is where the CNAME record of a name leads, the name itself if there is none.
func (s *state) cname(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsQuery)
	defer cancel()
	target, err := resolver(s.o.DNSServers...).LookupCNAME(ctx, name+".")
	if isNotFound(err) {
		return name, nil
	}
	return strings.ToLower(strings.TrimSuffix(target, ".")), err
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

// zone is the zone that a name is in, with its name servers.
type zone struct {
	name    string
	servers []string // host names
}

// findZone looks for the nearest name above, or the name itself, that has NS records.
func (s *state) findZone(ctx context.Context, name string) (zone, error) {
	r := resolver(s.o.DNSServers...)
	for at := name; strings.Contains(at, "."); _, at, _ = strings.Cut(at, ".") {
		if target, err := s.cname(ctx, at); err == nil && target != at {
			continue // the NS records of an alias are those of its target
		}
		limited, cancel := context.WithTimeout(ctx, dnsQuery)
		servers, err := r.LookupNS(limited, at+".")
		cancel()
		switch {
		case len(servers) > 0:
			z := zone{name: at}
			for _, server := range servers {
				z.servers = append(z.servers, strings.TrimSuffix(server.Host, "."))
			}
			slices.Sort(z.servers)
			return z, nil
		case err != nil && !isNotFound(err):
			return zone{}, fmt.Errorf("looking for the zone of %s: %w", name, err)
		}
	}
	return zone{}, fmt.Errorf("no zone is found for %s: no name above it has NS records", name)
}

// awaitTXT waits until all name servers of a zone that answer have a TXT record, as a CA asks any
// of them.
func (s *state) awaitTXT(ctx context.Context, z zone, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.DNSTimeout)
	defer cancel()
	servers := s.o.DNSServers
	if len(servers) == 0 {
		for _, host := range z.servers {
			servers = append(servers, net.JoinHostPort(host, dnsPort))
		}
	}
	began := time.Now()
	for wait := 200 * time.Millisecond; ; wait = min(wait*3/2, 5*time.Second) {
		have, without, silent := 0, "", error(nil)
		for _, server := range servers {
			values, err := lookupTXT(ctx, resolver(server), name)
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
