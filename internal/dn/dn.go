// Package dn formats distinguished names of certificates. Anyone can send a name of any size, with
// any characters.
package dn

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"unicode"
)

// maxAttributes is how many attributes of a kind are written. The time of pkix.Name.String grows
// with the square of their number: with 8,000, which fit into a handshake, it takes 0.2 s.
const maxAttributes = 50

// String returns a name in the form of RFC 2253. Line breaks and other unprintable characters are
// escaped as RFC 2253 escapes bytes. Attributes over 50 are replaced by "…".
func String(name pkix.Name) string {
	most := 0
	for _, all := range []*[]string{
		&name.Country, &name.Organization, &name.OrganizationalUnit, &name.Locality, &name.Province, &name.StreetAddress, &name.PostalCode,
	} {
		most = max(most, len(*all))
		*all = (*all)[:min(len(*all), maxAttributes)]
	}
	most = max(most, len(name.Names), len(name.ExtraNames))
	name.Names = name.Names[:min(len(name.Names), maxAttributes)]
	name.ExtraNames = name.ExtraNames[:min(len(name.ExtraNames), maxAttributes)]
	text := Printable(name.String())
	if most > maxAttributes {
		text += "…"
	}
	return text
}

// Printable escapes unprintable characters in a text, such as line breaks.
func Printable(text string) string {
	hidden := func(r rune) bool { return !unicode.IsPrint(r) }
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !hidden(r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			fmt.Fprintf(&b, `\%02X`, c)
		}
	}
	return b.String()
}
