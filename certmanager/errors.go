package certmanager

import (
	"errors"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// The errors of this package wrap one of these. The surrounding text names the file, name or peer
// and says what to do.
var (
	// ErrClosed means that a Manager was closed, or was not made by New.
	ErrClosed = errors.New("certificate manager is closed")

	// ErrNoCertificate is the error of a handshake if there is no certificate to serve.
	ErrNoCertificate = errors.New("no certificate")

	// ErrInvalid means that a certificate, key or bundle cannot be used.
	ErrInvalid = trust.ErrInvalid

	// ErrEncryptedKey means that a private key is encrypted.
	ErrEncryptedKey = pemfile.ErrEncrypted

	// ErrMismatch means that a private key does not belong to its certificate.
	ErrMismatch = trust.ErrMismatch

	// ErrNotCovered means that no certificate covers a name of Options.RequireNames.
	ErrNotCovered = errors.New("required name is not covered")

	// ErrUntrusted means that a chain does not lead to a known root.
	ErrUntrusted = trust.ErrUntrusted

	// ErrExpired means that a certificate has expired.
	ErrExpired = trust.ErrExpired

	// ErrNotYetValid means that a certificate is not valid yet.
	ErrNotYetValid = trust.ErrNotYetValid

	// ErrRevoked means that a certificate is on the revocation list of its issuer.
	ErrRevoked = trust.ErrRevoked

	// ErrCRLOutOfDate means that a revocation list is past its nextUpdate and
	// [Options.RequireFreshCRLs] is set.
	ErrCRLOutOfDate = trust.ErrOutOfDate

	// ErrNotAuthorized means that an authorization rule refused a verified peer.
	ErrNotAuthorized = errors.New("not authorized")

	// ErrRecycled is the reason of connections closed by Manager.Recycle.
	ErrRecycled = errors.New("recycled")
)
