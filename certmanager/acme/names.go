package acme

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/ergotls/ergotls/certmanager"
)

// identifier returns the form in which a name of Domains is ordered: a DNS name, an IP address, or
// a wildcard where challenges in DNS can be answered.
func identifier(name string, dns bool) (string, error) {
	if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
		return addr.Unmap().String(), nil
	}
	rest, wildcard := strings.CutPrefix(name, "*.")
	if !wildcard || !dns {
		return normalName(name)
	}
	base, err := normalName(rest)
	return "*." + base, err
}

// reverseName is the name under which DNS has what belongs to an address.
func reverseName(addr netip.Addr) string {
	b := addr.AsSlice()
	if addr.Is4() {
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", b[3], b[2], b[1], b[0])
	}
	name := "ip6.arpa"
	for _, b := range b {
		name = fmt.Sprintf("%x.%x.%s", b&15, b>>4, name)
	}
	return name
}

// normalName returns the form in which a DNS name is ordered and stored, or why no public CA
// would issue for it.
func normalName(name string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	labels := strings.Split(ascii, ".")
	if err == nil && len(labels) > 1 && !slices.Contains(labels, "") && len(ascii) <= 253 && !isAddress(ascii) {
		return ascii, nil
	}
	return "", fmt.Errorf("%w: %q %s", certmanager.ErrInvalid, name, whyNoName(name, err))
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// whyNoName says what a string is that is no DNS name, and what to write instead.
func whyNoName(name string, err error) string {
	host, _, port := strings.Cut(name, ":")
	switch {
	case name == "":
		return "is empty"
	case strings.ContainsAny(name, " \t\r\n,;"):
		return "has a space or a separator in it: give each name as an element of its own"
	case strings.Contains(name, "://") || strings.Contains(name, "/"):
		return "is a URL: give only its host name"
	case strings.Contains(name, "@"):
		return "is an e-mail address: give only its domain"
	case strings.HasPrefix(name, "[") && strings.Contains(name, "]"):
		return fmt.Sprintf("is not an IP address as it is ordered: give %q", name[1:strings.Index(name, "]")])
	case strings.Contains(name, "%") && isAddress(name):
		return "is an IP address of one network interface: no CA issues for it"
	case isAddress(name):
		return "is an IP address: give a DNS name"
	case port && host != "":
		return fmt.Sprintf("has a port: give %q, certificates are for names", host)
	case strings.HasPrefix(name, "*."):
		return "is a wildcard, which needs challenges in DNS: set DNSPersist or DNS"
	case strings.Contains(name, "*"):
		return `is a pattern: only the whole left-most label can be a wildcard, "*.example.com"`
	case !strings.Contains(strings.Trim(name, "."), "."):
		return "has no dot: no public CA issues for it"
	case err != nil:
		return fmt.Sprintf("is not a DNS name: %v", err)
	}
	return "is not a DNS name"
}
