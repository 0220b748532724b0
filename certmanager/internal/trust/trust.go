// Package trust checks certificates: their dates, chains, names and revocation. Its functions
// depend only on their arguments: they use no clock, no file and no Manager.
package trust

import "errors"

// The errors of this package wrap one of these, which package certmanager documents.
var (
	ErrInvalid     = errors.New("invalid certificate material")
	ErrMismatch    = errors.New("private key does not match the certificate")
	ErrUntrusted   = errors.New("not trusted")
	ErrExpired     = errors.New("certificate expired")
	ErrNotYetValid = errors.New("certificate not yet valid")
	ErrRevoked     = errors.New("revoked")
	ErrOutOfDate   = errors.New("revocation list is out of date")
)
