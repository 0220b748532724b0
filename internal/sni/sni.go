// Package sni checks the server names that clients ask for.
package sni

import (
	"errors"
	"fmt"
	"strconv"
)

// maxLength is the maximum length of a DNS name without the trailing dot (RFC 1035 section 3.1).
const maxLength = 253

// ErrName is wrapped by the errors of Check.
var ErrName = errors.New("server name (SNI) refused")

// Check refuses a name that can't be a host name: more than 253 bytes, control bytes, spaces, and
// bytes that are not ASCII (RFC 6066 section 3 requires A-labels). Such a name comes from a
// scanner, and would get into logs and caches. Underscores and the empty name are allowed.
func Check(name string) error {
	if len(name) > maxLength {
		return fmt.Errorf("%w: it has %d bytes, a DNS name has at most %d", ErrName, len(name), maxLength)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f {
			return fmt.Errorf("%w: %s has a byte that no host name has", ErrName, strconv.QuoteToASCII(name))
		}
	}
	return nil
}
