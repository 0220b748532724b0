package certmanager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/internal/clock"
)

// The keys of autocert's cache. They and the formats below are part of what its users
// have on their disks.
const accountCacheKey = "acme_account+key"

const legacyAccountCacheKey = "acme_account.key"

func certCacheKey(name string, kind KeyType) string {
	if kind == RSA2048 {
		return name + "+rsa"
	}
	return name
}

func tokenCertCacheKey(name string) string { return name + "+token" }

func httpTokenCacheKey(urlPath string) string { return path.Base(urlPath) + "+http-01" }

// setAsideCacheKey is ours: what could not be read is kept there, for whoever looks for the reason.
func setAsideCacheKey(key string) string { return key + "+unreadable" }

// cacheTimeout bounds one access to the cache.
const cacheTimeout = 10 * time.Second

// cacheTime is for how long a cache that hangs may hold something up that has to end with ctx.
func cacheTime(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(cacheTimeout, max(time.Until(end)/4, time.Second))
	}
	return cacheTimeout
}

// errUnreadable is about a cache entry whose contents make no sense, now or later.
var errUnreadable = errors.New("unreadable cache entry")

// locker is a Cache that lets one of several machines do something.
type locker interface {
	Lock(ctx context.Context, name string) (unlock func(), err error)
}

// encodeCached returns a private key and a chain as autocert stores them.
func encodeCached(cert tls.Certificate) ([]byte, error) {
	b, err := encodeKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	for _, der := range cert.Certificate {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return b, nil
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			return nil, err
		}
		return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), nil
	}
	return nil, fmt.Errorf("%w: key type %T", ErrInvalid, key)
}

// decodeKey reads the first private key of a cache entry, and returns what follows.
func decodeKey(data []byte) (crypto.Signer, []byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || !strings.Contains(block.Type, "PRIVATE") {
		return nil, nil, fmt.Errorf("%w: it does not begin with a private key", errUnreadable)
	}
	var key any
	var err error
	if key, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
		if key, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		}
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, nil, fmt.Errorf("%w: its private key cannot be parsed", errUnreadable) // without its bytes
	}
	return signer, rest, nil
}

// decodeCached reads a private key and a chain.
func decodeCached(data []byte) (tls.Certificate, error) {
	key, rest, err := decodeKey(data)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert := tls.Certificate{PrivateKey: key}
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return tls.Certificate{}, fmt.Errorf("%w: it is cut off or damaged", errUnreadable)
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	if len(cert.Certificate) == 0 {
		return tls.Certificate{}, fmt.Errorf("%w: it has no certificate", errUnreadable)
	}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return tls.Certificate{}, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return cert, nil
}

// newACMEKey makes the key of one certificate.
func newACMEKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func isMiss(err error) bool { return errors.Is(err, autocert.ErrCacheMiss) }

func (s *acmeState) get(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, cacheTime(ctx))
	defer cancel()
	b, err := s.o.Cache.Get(ctx, key)
	if err != nil && !isMiss(err) {
		return nil, fmt.Errorf("cache: reading %s: %w", key, err)
	}
	return b, err
}

func (s *acmeState) put(ctx context.Context, key string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, cacheTime(ctx))
	defer cancel()
	if err := s.o.Cache.Put(ctx, key, data); err != nil {
		return fmt.Errorf("cache: writing %s: %w", key, err)
	}
	return nil
}

// setAside moves an entry out of the way that will never be of use.
func (s *acmeState) setAside(ctx context.Context, name, key string, data []byte, reason error) {
	err := s.put(ctx, setAsideCacheKey(key), data)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, cacheTime(ctx))
		defer cancel()
		err = s.o.Cache.Delete(ctx, key)
	}
	s.emit(CacheFailed, name, errors.Join(fmt.Errorf("cache: %s is set aside as %s: %w", key, setAsideCacheKey(key), reason), err))
}

// load returns the certificate of a name from the cache, nil if there is none of use. A cache that
// cannot be read is reported once, until it can: where it is shared it is read every minute.
func (s *acmeState) load(ctx context.Context, n *acmeName) *tls.Certificate {
	key := certCacheKey(n.name, s.o.Key)
	data, err := s.get(ctx, key)
	if err != nil && !isMiss(err) {
		if s.ctx.Err() == nil && !n.unread {
			n.unread = true
			s.emit(CacheFailed, n.name, err)
		}
		return nil
	}
	n.unread = false
	if err != nil {
		return nil
	}
	cert, err := decodeCached(data)
	if err == nil {
		err = s.check(cert, n.name)
	}
	switch {
	case err == nil && !clock.Now().Before(endOfService(cert.Leaf)):
		return nil // or it would be put in service and taken out again until it ends
	case err == nil:
		return &cert
	case errors.Is(err, ErrExpired), errors.Is(err, ErrNotYetValid):
		return nil // what follows it will take its place
	}
	s.setAside(ctx, n.name, key, data, err)
	return nil
}

// check says whether a certificate can be served for a name now.
func (s *acmeState) check(cert tls.Certificate, name string) error {
	c, err := newCertificate(cert, "ACME")
	if err != nil {
		return err
	}
	if err := c.chain[0].VerifyHostname(name); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !c.server {
		return fmt.Errorf("%w: it is not for servers", ErrInvalid)
	}
	if isRSA := c.key == rsaKey; isRSA != (s.o.Key == RSA2048) {
		return fmt.Errorf("%w: its key is not of the type that ACME.Key asks for", ErrInvalid)
	}
	return c.checkDates(clock.Now())
}
