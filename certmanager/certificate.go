package certmanager

import (
	"bytes"
	"cmp"
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
	ended   atomic.Bool           // the chain is outside its time. The expiry schedule sets it, so that no lookup has to read the clock.
	schemes []tls.SignatureScheme // those that a key which is not in memory is restricted to; nil: not restricted

	tls      tls.Certificate     // Leaf is set
	chain    []*x509.Certificate // leaf first, then what is of use of the others
	origin   string              // the file it came from, or the option
	warnings []error             // about what is served all the same

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

// newCertificate checks what does not depend on trust: that the key belongs to one of the
// certificates, that the others lead away from it, and that its usage is TLS. What is not needed is
// not served.
func newCertificate(cert tls.Certificate, origin string) (c *certificate, err error) {
	defer recovered(origin, &err)
	runtime.Gosched() // a thousand of these would hold up who is being served
	c = &certificate{tls: cert, origin: origin, schemes: cert.SupportedSignatureAlgorithms}
	if len(cert.Certificate) == 0 {
		return nil, fmt.Errorf("%s: %w: it holds no certificate", origin, ErrInvalid)
	}
	certs, err := parseAll(cert.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", origin, ErrInvalid, err)
	}
	now := clock.Now()
	leaf, err := leafOf(certs, cert.PrivateKey, now)
	if err == nil {
		c.tls.Leaf, c.tls.PrivateKey = leaf, watchKey(cert.PrivateKey)
		err = cmp.Or(c.takeKey(), c.arrange(certs, now), c.checkUsage())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: certificate %s: %w", origin, describe(cmp.Or(leaf, certs[0])), err)
	}
	c.checkLeaf()
	c.note(now)
	return c, nil
}

// parseAll parses certificates, each once.
func parseAll(ders [][]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for i, der := range ders {
		if slices.ContainsFunc(ders[:i], func(other []byte) bool { return bytes.Equal(der, other) }) {
			continue
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// leafOf returns the certificate of a key. Of several the first that is in its time.
func leafOf(certs []*x509.Certificate, key crypto.PrivateKey, now time.Time) (*x509.Certificate, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: its private key is no crypto.Signer", ErrInvalid)
	}
	var first *x509.Certificate
	for _, cert := range certs {
		if !isKeyOf(signer, cert) {
			continue
		}
		if checkDates(cert, now) == nil {
			return cert, nil
		}
		first = cmp.Or(first, cert)
	}
	if first == nil {
		return nil, ErrMismatch
	}
	return first, nil
}

func isKeyOf(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(key.Public())
}

// takeKey notes of which kind the key is.
func (c *certificate) takeKey() error {
	switch public := c.tls.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		c.key = ecdsaKey
		switch public.Curve {
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
		c.key = ed25519Key
	case *rsa.PublicKey:
		c.key = rsaKey
	default:
		return fmt.Errorf("%w: key type %T; use ECDSA, Ed25519 or RSA", ErrInvalid, public)
	}
	return nil
}

func (c *certificate) checkUsage() error {
	leaf := c.tls.Leaf
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
	ended, next := c.checkDates(now) != nil, clock.Far
	for _, cert := range c.chain {
		for _, when := range []time.Time{cert.NotBefore, cert.NotAfter} {
			if !now.After(when) {
				next = min(next, clock.Until(when)+time.Nanosecond)
			}
		}
	}
	if ended != c.ended.Load() { // what every handshake reads is written rarely
		c.ended.Store(ended)
	}
	return next
}

// checkDates refuses a chain whose leaf is outside its time, or each that issued the leaf.
// What stands above these need not be needed: peers may know their issuer by another certificate.
func (c *certificate) checkDates(now time.Time) error {
	err := checkDates(c.chain[0], now)
	if err == nil {
		for _, cert := range c.chain[1:] {
			if !bytes.Equal(cert.RawSubject, c.chain[0].RawIssuer) {
				continue
			}
			outside := checkDates(cert, now)
			if outside == nil {
				return nil
			}
			err = cmp.Or(err, outside)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.origin, err)
	}
	return nil
}

func checkDates(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return fmt.Errorf("%s: %w: begins %s, and the clock here says %s", describe(cert), ErrNotYetValid, inUTC(cert.NotBefore), inUTC(now))
	case now.After(cert.NotAfter):
		return fmt.Errorf("%s: %w: ended %s, and the clock here says %s", describe(cert), ErrExpired, inUTC(cert.NotAfter), inUTC(now))
	}
	return nil
}

func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }

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

// signs says whether the key makes signatures of a scheme, RFC 8446 section 4.2.3. One that is not
// in memory may be restricted to some.
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
