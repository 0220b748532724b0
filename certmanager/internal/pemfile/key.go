package pemfile

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Keys returns the private keys of a file, of which there is at least one: PKCS #8, PKCS #1 or SEC
// 1, whatever their titles say.
func (f *File) Keys() ([]crypto.Signer, error) {
	var keys []crypto.Signer
	var errs []error
	for _, b := range f.of(key, encryptedKey) {
		signer, err := parseKey(b.der)
		if err != nil {
			if b.kind == encryptedKey {
				err = ErrEncrypted
			}
			errs = append(errs, err)
			continue
		}
		keys = append(keys, signer)
	}
	switch {
	case len(keys) > 0:
		return keys, nil // a key that cannot be read is missed where it is looked for
	case len(errs) > 0 && errors.Is(errs[0], ErrEncrypted):
		return nil, fmt.Errorf("%w; decrypt it with openssl pkey -in FILE -out NEW, and let file permissions protect it", ErrEncrypted)
	case len(errs) > 0:
		return nil, errs[0]
	}
	return nil, fmt.Errorf("it holds no private key, but %s", f.describe())
}

func parseKey(der []byte) (crypto.Signer, error) {
	parsed, err := parseAnyKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its private key is of type %T, which cannot sign", parsed)
	}
	return signer, nil
}

// parseAnyKey tries the three forms as crypto/tls does. No error quotes the key.
func parseAnyKey(der []byte) (any, error) {
	if parsed, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return parsed, nil
	}
	if parsed, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return parsed, nil
	}
	if parsed, err := x509.ParseECPrivateKey(der); err == nil {
		return parsed, nil
	}
	if isEncryptedKey(der) { // under the title of one that is not
		return nil, ErrEncrypted
	}
	return nil, errors.New("its private key cannot be parsed; use ECDSA with P-256, P-384 or P-521, Ed25519 or RSA")
}

// isEncryptedKey says whether DER is an encrypted private key, RFC 5208 section 6.
func isEncryptedKey(der []byte) bool {
	return unmarshals(der, new(struct {
		Algorithm struct {
			Algorithm  asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}))
}
