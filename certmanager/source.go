package certmanager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// A Source provides certificates and CAs. [Files], [Static], [Func] and [Sources] are sources.
//
// A source need not check its contents. The Manager checks them and puts them in service, or
// reports the error and keeps the previous set.
type Source interface {
	// Load returns the current contents of the source. previous is the last Material that Load
	// returned to this Manager, nil at first. If nothing has changed, Load may return previous itself;
	// it may also reuse parts of it. Load may ignore previous: the Manager compares the contents, so
	// equal contents are not put in service twice.
	//
	// The Manager calls Load after changed, at every Options.PollInterval, and again soon after an
	// error. It makes one call at a time, on its own goroutine and without holding a lock. ctx ends
	// with Close, and after ten seconds except in the first call, which is logged if it takes longer.
	//
	// If Load returns an error, the set in service stays, unless Load also returns a Material: then
	// that is put in service.
	Load(ctx context.Context, previous *Material) (*Material, error)

	// Watch calls changed whenever the contents may have changed, and report for events such as
	// [Issued] or a [Warning], until ctx ends. Both functions may be called from any goroutine until
	// Watch returns, and do not block.
	//
	// The Manager calls Watch on a goroutine of its own before the first Load, and waits
	// for it in Close. If Watch returns nil before ctx ends, the source cannot notice
	// changes and is polled. If it returns an error, that is reported, the source is polled,
	// and Watch is called again later.
	Watch(ctx context.Context, changed func(), report func(Event)) error
}

// Material is the contents of a source at one time. It must not be modified after Load returns it.
type Material struct {
	// Certificates are the chains with their keys. The first is the default, for clients
	// without SNI.
	Certificates []Certificate

	// ClientCAs verify clients, RootCAs verify servers. Without RootCAs and RootCAPool, the system's
	// roots verify servers.
	ClientCAs, RootCAs []*x509.Certificate
	// ClientCAPool and RootCAPool are added to these. At most one of all Parts may set each.
	ClientCAPool, RootCAPool *x509.CertPool

	// TrustDomains are the CAs of each SPIFFE trust domain. A peer whose certificate has a SPIFFE ID
	// is verified only with the CAs of its domain. A server with such an ID is identified by
	// Options.ServerRule instead of its name; without a rule, by its name.
	TrustDomains map[string][]*x509.Certificate

	// CRLs are revocation lists. CRLIssuers are CAs that sign lists and are neither among the CAs
	// above nor in a chain; they are not trusted as CAs of peers.
	CRLs       []*x509.RevocationList
	CRLIssuers []*x509.Certificate

	// ECHKeys are the server's Encrypted Client Hello keys (RFC 9849).
	ECHKeys []tls.EncryptedClientHelloKey

	// TicketKeys are the keys of session tickets: the first encrypts new ones, all decrypt. They
	// replace Options.TicketKeys whenever they change.
	TicketKeys [][32]byte

	// Warnings name skipped entries and faults of served ones. Each is reported once as a [Warning]
	// event, and is in Status while it lasts.
	Warnings []error

	// The functions below are called in handshakes, from many goroutines, and for a while after
	// another Material has replaced this one. Each may be nil. A Material that differs from the one in
	// service only in these functions is not put in service.

	// GetCertificate is called for a name that no certificate covers. It may block until
	// hello.Context() ends. Its certificates are served unchecked. A Material with GetCertificate need
	// not have Certificates.
	GetCertificate func(hello *tls.ClientHelloInfo) (*tls.Certificate, error)

	// Challenge returns the answer to a TLS-ALPN-01 challenge (RFC 8737). It is called only if the
	// server closes the connection of a challenge. The certificate must have the acmeIdentifier
	// extension.
	Challenge func(hello *tls.ClientHelloInfo) (*tls.Certificate, error)

	// HTTPChallenge returns the answer to an HTTP-01 challenge (RFC 8555 section 8.3) for a host and
	// the path of a URL. [Manager.HTTPHandler] first calls it with an empty path, which means that
	// such challenges are answered from then on.
	HTTPChallenge func(host, path string) (body string, ok bool)

	// Orders returns the names for which the source obtains certificates, for Status. A Material with
	// Orders need not have Certificates.
	Orders func() []OrderStatus

	// Tag is for the source's own use, for example an ETag. The Manager ignores it.
	Tag any

	// Parts are put in service together, in this order, as in [Sources]. If that fails, each changed
	// part is tried without the others, so a part that fails does not affect the others. A Material
	// with Parts has no other field.
	Parts []*Material
}

// Certificate is a chain with its key, leaf first.
type Certificate struct {
	tls.Certificate

	// Origin is the file or name to use in errors and Status.
	Origin string

	// Renewed means that the source replaces or removes the certificate before it expires. It is
	// preferred to others for its names, and its chain need not lead to RootCAs.
	Renewed bool
}

// flat returns the parts, including nested ones.
func (m *Material) flat() []*Material {
	if len(m.Parts) == 0 {
		return []*Material{m}
	}
	var all []*Material
	for _, part := range m.Parts {
		if part != nil {
			all = append(all, part.flat()...)
		}
	}
	return all
}

// check returns an error for contents that would make the Manager panic.
func (m *Material) check() error {
	for _, part := range m.flat() {
		all := slices.Concat(part.ClientCAs, part.RootCAs, part.CRLIssuers)
		for name, cas := range part.TrustDomains {
			if err := trust.TrustDomain.Check([]string{name}); err != nil {
				return fmt.Errorf("%w: Material.TrustDomains: %w", ErrInvalid, err)
			}
			all = append(all, cas...)
		}
		if slices.Contains(all, nil) || slices.Contains(part.CRLs, nil) || slices.Contains(part.Warnings, nil) {
			return fmt.Errorf("%w: the source returned a Material with a nil certificate, list or warning", ErrInvalid)
		}
	}
	return nil
}

// equal reports whether two parts have the same contents. Functions, Warnings and Tag do not count.
func (m *Material) equal(other *Material) bool {
	if m == other {
		return true
	}
	sameCert := func(a, b *x509.Certificate) bool { return a.Equal(b) }
	return slices.EqualFunc(m.Certificates, other.Certificates, Certificate.equal) &&
		slices.EqualFunc(m.ClientCAs, other.ClientCAs, sameCert) && slices.EqualFunc(m.RootCAs, other.RootCAs, sameCert) &&
		m.ClientCAPool == other.ClientCAPool && m.RootCAPool == other.RootCAPool &&
		maps.EqualFunc(m.TrustDomains, other.TrustDomains, func(a, b []*x509.Certificate) bool { return slices.EqualFunc(a, b, sameCert) }) &&
		slices.EqualFunc(m.CRLs, other.CRLs, func(a, b *x509.RevocationList) bool { return bytes.Equal(a.Raw, b.Raw) }) &&
		slices.EqualFunc(m.CRLIssuers, other.CRLIssuers, sameCert) &&
		slices.EqualFunc(m.ECHKeys, other.ECHKeys, func(a, b tls.EncryptedClientHelloKey) bool {
			return bytes.Equal(a.Config, b.Config) && bytes.Equal(a.PrivateKey, b.PrivateKey) && a.SendAsRetry == b.SendAsRetry
		}) &&
		slices.Equal(m.TicketKeys, other.TicketKeys) &&
		(m.GetCertificate == nil) == (other.GetCertificate == nil) && (m.Challenge == nil) == (other.Challenge == nil) &&
		(m.HTTPChallenge == nil) == (other.HTTPChallenge == nil) && (m.Orders == nil) == (other.Orders == nil)
}

func (c Certificate) equal(other Certificate) bool {
	return c.Origin == other.Origin && c.Renewed == other.Renewed && sameChain(c.Certificate, other.Certificate)
}

// sameChain reports whether a and b are the same in a handshake.
func sameChain(a, b tls.Certificate) bool {
	return slices.EqualFunc(a.Certificate, b.Certificate, bytes.Equal) && sameKey(a.PrivateKey, b.PrivateKey) &&
		bytes.Equal(a.OCSPStaple, b.OCSPStaple) && slices.EqualFunc(a.SignedCertificateTimestamps, b.SignedCertificateTimestamps, bytes.Equal) &&
		slices.Equal(a.SupportedSignatureAlgorithms, b.SupportedSignatureAlgorithms)
}

func sameKey(a, b crypto.PrivateKey) bool {
	defer func() { _ = recover() }() // for example of a nil *ecdsa.PrivateKey; its use is refused later
	a, b = unwatched(a), unwatched(b)
	if reflect.TypeOf(a) == reflect.TypeOf(b) && (a == nil || reflect.TypeOf(a).Comparable()) && a == b {
		return true // including the same session with a device, and a nil key, whose Equal panics
	}
	key, ok := a.(interface{ Equal(crypto.PrivateKey) bool })
	return ok && key.Equal(b)
}
