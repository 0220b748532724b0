package acme

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
)

// The formats of a cache's entries, which are autocert's.

// encodeCached returns a private key and a chain as autocert stores them.
func encodeCached(cert *tls.Certificate) ([]byte, error) {
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
	return nil, fmt.Errorf("%w: key type %T", certmanager.ErrInvalid, key)
}

// decodeKey reads the first private key of a cache entry.
func decodeKey(data []byte) (crypto.Signer, error) {
	file, err := pemfile.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	keys, err := file.Keys()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err) // without the contents
	}
	return keys[0], nil
}

// decodeCached reads a private key and a complete chain.
func decodeCached(data []byte) (*tls.Certificate, error) {
	for rest := data; len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%w: it is cut off or damaged", errUnreadable)
		}
	}
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return &cert, nil
}

// newKey generates a key. encoded is its stored form.
func newKey(kind KeyType) (key crypto.Signer, encoded []byte, err error) {
	switch kind {
	case ECDSAP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err == nil {
		encoded, err = encodeKey(key)
	}
	return key, encoded, err
}
