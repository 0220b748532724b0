package certmanager

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
)

// certificate is a chain with its key and what a lookup needs to know of it. It is
// immutable but for ended, proven and trying.
type certificate struct {
	// What a lookup reads, in one line of the processor's cache.
	key     keyKind
	curve   tls.CurveID           // of an ECDSA key
	ended   atomic.Bool           // the chain is past its end. The expiry schedule sets it, so that no lookup has to read the clock.
	schemes []tls.SignatureScheme // those that a key which is not in memory is restricted to; nil: not restricted

	tls    tls.Certificate     // Leaf is set
	chain  []*x509.Certificate // leaf first
	origin string              // the file it came from, or the option

	server, client bool        // what its extended key usage allows
	proven, trying atomic.Bool // its key has signed in a rehearsal; it is being asked to
	owner          bool        // of its names: it comes before others of another source
}

type keyKind int

// In the order in which keys are preferred.
const (
	ecdsaKey keyKind = iota
	ed25519Key
	rsaKey
)

func (c *certificate) keyRank() int {
	if c.owner {
		return int(c.key)
	}
	return int(rsaKey) + 1 + int(c.key)
}

// newCertificate checks what does not depend on time or trust: that the key belongs
// to the leaf, that the chain is in order and that its usage is TLS.
func newCertificate(cert tls.Certificate, origin string) (*certificate, error) {
	runtime.Gosched() // a thousand of these would hold up who is being served
	c := &certificate{tls: cert, origin: origin, schemes: cert.SupportedSignatureAlgorithms}
	if len(cert.Certificate) == 0 {
		return nil, fmt.Errorf("%s: %w: it holds no certificate", origin, ErrInvalid)
	}
	for _, der := range cert.Certificate {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", origin, ErrInvalid, err)
		}
		c.chain = append(c.chain, parsed)
	}
	leaf := c.chain[0]
	c.tls.Leaf = leaf
	for _, check := range []func() error{c.checkKey, c.checkOrder, c.checkUsage} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("%s: certificate %s: %w", origin, describe(leaf), err)
		}
	}
	return c, nil
}

func (c *certificate) checkKey() error {
	signer, ok := c.tls.PrivateKey.(crypto.Signer)
	if !ok {
		return fmt.Errorf("%w: its private key is no crypto.Signer", ErrInvalid)
	}
	var same bool
	switch pub := c.chain[0].PublicKey.(type) {
	case *ecdsa.PublicKey:
		c.key, same = ecdsaKey, pub.Equal(signer.Public())
		switch pub.Curve {
		case elliptic.P256():
			c.curve = tls.CurveP256
		case elliptic.P384():
			c.curve = tls.CurveP384
		case elliptic.P521():
			c.curve = tls.CurveP521
		default:
			return fmt.Errorf("%w: TLS has no use for its curve; use P-256", ErrInvalid)
		}
	case ed25519.PublicKey:
		c.key, same = ed25519Key, pub.Equal(signer.Public())
	case *rsa.PublicKey:
		c.key, same = rsaKey, pub.Equal(signer.Public())
	default:
		return fmt.Errorf("%w: key type %T; use ECDSA, Ed25519 or RSA", ErrInvalid, pub)
	}
	if !same {
		return ErrMismatch
	}
	return nil
}

func (c *certificate) checkOrder() error {
	for i, cert := range c.chain[1:] {
		if err := c.chain[i].CheckSignatureFrom(cert); err != nil {
			return fmt.Errorf("%w: its chain is out of order, %s did not issue %s: %w; put the leaf first and each issuer after it",
				ErrInvalid, describe(cert), describe(c.chain[i]), err)
		}
	}
	return nil
}

func (c *certificate) checkUsage() error {
	leaf := c.chain[0]
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("%w: its key usage lacks digital signature, which every ECDHE handshake needs", ErrInvalid)
	}
	none := len(leaf.ExtKeyUsage) == 0 && len(leaf.UnknownExtKeyUsage) == 0
	all := none || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
	c.server = all || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	c.client = all || slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	if !c.server && !c.client {
		return fmt.Errorf("%w: its extended key usage allows neither TLS servers nor TLS clients", ErrInvalid)
	}
	return nil
}

// note sets ended by the clock, and returns the time until it has to be set again.
func (c *certificate) note(now time.Time) (next time.Duration) {
	ended, next := false, clock.Far
	for _, cert := range c.chain {
		if now.After(cert.NotAfter) {
			ended = true
		} else {
			next = min(next, clock.Until(cert.NotAfter)+time.Nanosecond)
		}
	}
	if ended != c.ended.Load() { // what every handshake reads is written rarely
		c.ended.Store(ended)
	}
	return next
}

// checkDates refuses a chain of which any certificate is outside its time.
func (c *certificate) checkDates(now time.Time) error {
	for _, cert := range c.chain {
		if err := checkDates(cert, now); err != nil {
			return fmt.Errorf("%s: %w", c.origin, err)
		}
	}
	return nil
}

func checkDates(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%s: %w: begins %s", describe(cert), ErrNotYetValid, cert.NotBefore.Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return fmt.Errorf("%s: %w: ended %s", describe(cert), ErrExpired, cert.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// supportedBy says whether the client can verify a signature of this key. It is
// ClientHelloInfo.SupportsCertificate without its allocations and without the
// parts that the index has answered already.
func (c *certificate) supportedBy(hello *tls.ClientHelloInfo) bool {
	if len(hello.SignatureSchemes) == 0 {
		return c.key == rsaKey // RFC 5246 section 7.4.1.4.1; nothing but RSA is safe to assume
	}
	tls13 := slices.Contains(hello.SupportedVersions, tls.VersionTLS13)
	if !slices.ContainsFunc(hello.SignatureSchemes, func(s tls.SignatureScheme) bool { return c.signs(s, tls13) }) {
		return false
	}
	if tls13 {
		return true
	}
	if c.key == ecdsaKey && !slices.Contains(hello.SupportedCurves, c.curve) {
		return false
	}
	suites := ecdsaSuites
	if c.key == rsaKey {
		suites = rsaSuites
	}
	return slices.ContainsFunc(hello.CipherSuites, func(id uint16) bool { return slices.Contains(suites, id) })
}

// signs says whether the key makes signatures of a scheme, RFC 8446 section 4.2.3. One that is not in memory may be
// restricted to some.
func (c *certificate) signs(s tls.SignatureScheme, tls13 bool) bool {
	if c.schemes != nil && !slices.Contains(c.schemes, s) {
		return false
	}
	switch s {
	case tls.ECDSAWithP256AndSHA256:
		return c.key == ecdsaKey && (!tls13 || c.curve == tls.CurveP256)
	case tls.ECDSAWithP384AndSHA384:
		return c.key == ecdsaKey && (!tls13 || c.curve == tls.CurveP384)
	case tls.ECDSAWithP521AndSHA512:
		return c.key == ecdsaKey && (!tls13 || c.curve == tls.CurveP521)
	case tls.Ed25519:
		return c.key == ed25519Key
	case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512:
		return c.key == rsaKey
	case tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512:
		return c.key == rsaKey && !tls13
	}
	return false
}

// describe names a certificate in errors and logs without its contents.
func describe(cert *x509.Certificate) string {
	name := cert.Subject.String()
	switch {
	case name != "":
	case len(cert.DNSNames) > 0:
		name = cert.DNSNames[0]
	case len(cert.URIs) > 0:
		name = cert.URIs[0].String()
	case len(cert.IPAddresses) > 0:
		name = cert.IPAddresses[0].String()
	default:
		name = "without a name"
	}
	return fmt.Sprintf("%q (serial %s)", cut(name, maxPeerText), cut(cert.SerialNumber.Text(16), maxPeerText))
}
