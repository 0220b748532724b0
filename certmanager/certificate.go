package certmanager

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/ergotls/ergotls/certmanager/internal/trust"
	"github.com/ergotls/ergotls/internal/clock"
)

// certificate is a chain with its key and the data that lookups need. It is immutable except for
// proven and trying.
type certificate struct {
	key      keyKind
	tls      tls.Certificate     // Leaf is set
	chain    []*x509.Certificate // leaf first, then the useful ones of the others
	origin   string              // the file it came from, or the option
	warnings []error             // faults that do not keep it from being served

	server, client bool        // allowed by its extended key usage
	proven, trying atomic.Bool // its key has signed in a rehearsal; a signature is pending
	renewed        bool        // its source renews it: it is preferred for its names
}

type keyKind int

// In order of preference.
const (
	ecdsaKey keyKind = iota
	ed25519Key
	rsaKey
)

func (c *certificate) keyRank() int {
	if c.renewed {
		return int(c.key)
	}
	return int(rsaKey) + 1 + int(c.key)
}

// newCertificate checks what does not depend on trust: that the key belongs to one of the
// certificates, that the others form its chain, and that its usage is TLS. It drops certificates
// that are not needed.
func newCertificate(cert tls.Certificate, origin string) (c *certificate, err error) {
	defer recovered("a package that reads "+origin, &err)
	c = &certificate{tls: cert, origin: origin}
	certs, err := trust.Parse(cert.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", origin, err)
	}
	now := clock.Now()
	leaf, err := trust.LeafOf(certs, cert.PrivateKey, now)
	if err == nil {
		c.tls.Leaf, c.tls.PrivateKey = leaf, watchKey(cert.PrivateKey)
		c.server, c.client, err = trust.Usage(leaf)
		err = cmp.Or(c.takeKey(), c.arrange(certs, now), err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: certificate %s: %w", origin, trust.Describe(cmp.Or(leaf, certs[0])), err)
	}
	c.checkLeaf()
	return c, nil
}

// arrange sorts the chain as peers expect it.
func (c *certificate) arrange(certs []*x509.Certificate, now time.Time) (err error) {
	var warning string
	if c.chain, warning, err = trust.Arrange(c.tls.Leaf, certs, now); err != nil {
		return err
	}
	c.tls.Certificate = nil
	size := 0
	for _, cert := range c.chain {
		c.tls.Certificate = append(c.tls.Certificate, cert.Raw)
		size += len(cert.Raw)
		if public, ok := cert.PublicKey.(*rsa.PublicKey); ok && public.N.BitLen() > maxRSABits {
			return fmt.Errorf("%w: the RSA key of %s has %d bits; peers written in Go accept at most %d", ErrInvalid, trust.Describe(cert), public.N.BitLen(), maxRSABits)
		}
	}
	if size > maxChainSize {
		return fmt.Errorf("%w: its chain of %d bytes exceeds the maximum of %d bytes, which clients accept", ErrInvalid, size, maxChainSize)
	}
	if warning != "" {
		c.warn(warning)
	}
	return nil
}

// maxRSABits is the largest RSA key that crypto/tls accepts in a peer's certificate.
const maxRSABits = 8192

// maxChainSize is the limit of the message that carries the chain, less some bytes of overhead.
const maxChainSize = 256<<10 - 1000

func (c *certificate) warn(text string) {
	c.warnings = append(c.warnings, fmt.Errorf("%s: certificate %s %s", c.origin, trust.Describe(c.tls.Leaf), text))
}

// wrap adds the name of the certificate to an error.
func (c *certificate) wrap(err error) error {
	return fmt.Errorf("%s: certificate %s: %w", c.origin, trust.Describe(c.tls.Leaf), err)
}

// issuersOf yields the certificates after the leaves of chains, each once.
func issuersOf(certs []*certificate) iter.Seq2[*x509.Certificate, *certificate] {
	return func(yield func(*x509.Certificate, *certificate) bool) {
		seen := make(map[string]bool)
		for _, c := range certs {
			for _, issuer := range c.chain[1:] {
				if known := seen[string(issuer.Raw)]; !known && !yield(issuer, c) {
					return
				}
				seen[string(issuer.Raw)] = true
			}
		}
	}
}

// checkLeaf warns about leaves that some peers refuse.
func (c *certificate) checkLeaf() {
	leaf := c.tls.Leaf
	if len(c.tls.OCSPStaple) == 0 && trust.MustStaple(leaf) {
		c.warn("asks for a stapled OCSP response (must-staple), and there is none: peers that insist on it refuse it; have it issued without")
	}
	if c.server && len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.URIs)+len(leaf.EmailAddresses) == 0 {
		c.warn("has no names (subject alternative names): clients verify a server by these and refuse it; its common name does not count")
	}
	for _, issuer := range c.chain[1:] {
		switch {
		case c.server && !trust.Allows(issuer, x509.ExtKeyUsageServerAuth):
			c.warn("is for servers, which the extended key usage of its issuer " + trust.Describe(issuer) + " does not allow: clients refuse it")
		case !c.server && !trust.Allows(issuer, x509.ExtKeyUsageClientAuth):
			c.warn("is for clients, which the extended key usage of its issuer " + trust.Describe(issuer) + " does not allow: servers refuse it")
		}
	}
	if err := trust.CheckAlgorithm(leaf); err != nil {
		c.warnings = append(c.warnings, fmt.Errorf("%s: %w", c.origin, err))
	}
}

// takeKey records the kind of the key.
func (c *certificate) takeKey() error {
	switch public := c.tls.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P224() {
			return fmt.Errorf("%w: TLS does not use its curve; use P-256", ErrInvalid)
		}
		c.key = ecdsaKey
	case ed25519.PublicKey:
		c.key = ed25519Key
	case *rsa.PublicKey:
		c.key = rsaKey
	default:
		return fmt.Errorf("%w: key type %T; use ECDSA, Ed25519 or RSA", ErrInvalid, public)
	}
	return nil
}

func (c *certificate) checkDates(now time.Time) error {
	if err := trust.CheckChainDates(c.chain, now); err != nil {
		return fmt.Errorf("%s: %w", c.origin, err)
	}
	return nil
}
