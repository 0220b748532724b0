package pemfile

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
)

// Keys returns the private keys of a file, of which there is at least one: PKCS #8, PKCS #1 or SEC
// 1, whatever their titles say.
func (f *File) Keys() ([]crypto.Signer, error) {
	var keys []crypto.Signer
	var errs []error
	for _, b := range f.of(key) {
		signer, err := parseKey(b.der)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys = append(keys, signer)
	}
	switch {
	case len(keys) > 0:
		return keys, nil // a key that cannot be read is missed where it is looked for
	case len(errs) > 0:
		return nil, errs[0]
	case len(f.of(encryptedKey)) > 0:
		return nil, fmt.Errorf("%w; decrypt it with openssl pkey -in FILE -out NEW, and let file permissions protect it", ErrEncrypted)
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
	return nil, errors.New("its private key cannot be parsed; use ECDSA with P-256, P-384 or P-521, Ed25519 or RSA")
}
