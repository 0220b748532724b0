package acme

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/ergotls/ergotls/certmanager"
)

// normalName returns the form in which a name is ordered and stored, or why no public CA
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
	case isAddress(name):
		return "is an IP address: give a DNS name"
	case port && host != "":
		return fmt.Sprintf("has a port: give %q, certificates are for names", host)
	case strings.HasPrefix(name, "*."):
		return "is a wildcard, which needs challenges in DNS"
	case strings.Contains(name, "*"):
		return `is a pattern: only the whole left-most label can be a wildcard, "*.example.com"`
	case !strings.Contains(strings.Trim(name, "."), "."):
		return "has no dot: no public CA issues for it"
	case err != nil:
		return fmt.Sprintf("is not a DNS name: %v", err)
	}
	return "is not a DNS name"
}
