package pemfile

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// Keys returns the private keys of a file, at least one: PKCS #8, PKCS #1 or SEC 1, regardless of
// their titles.
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
		return keys, nil // an unreadable key is reported if a certificate needs it
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
	return asSigner(parsed)
}

func asSigner(key any) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("its private key is of type %T, which cannot sign", key)
	}
	return signer, nil
}

// maxKeySize is the largest private key in bytes. RSA with 16,384 bits has 9,300. crypto/x509
// checks a key before it is known to be too large: one of 590 KB takes a minute, and one of 16 MB
// hours.
const maxKeySize = 16 << 10

// parseAnyKey tries the three forms as crypto/tls does. No error quotes the key.
func parseAnyKey(der []byte) (any, error) {
	if len(der) > maxKeySize {
		return nil, fmt.Errorf("its private key has %d bytes, more than any that TLS uses", len(der))
	}
	if parsed, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return parsed, nil
	}
	if parsed, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return parsed, nil
	}
	if parsed, err := x509.ParseECPrivateKey(der); err == nil {
		return parsed, nil
	}
	if isEncryptedKey(der) { // with the title of an unencrypted key
		return nil, ErrEncrypted
	}
	return nil, errors.New("its private key cannot be parsed; use ECDSA with P-256, P-384 or P-521, Ed25519 or RSA")
}

// isEncryptedKey reports whether DER is an encrypted private key (RFC 5208 section 6).
func isEncryptedKey(der []byte) bool {
	return unmarshals(der, new(struct {
		Algorithm struct {
			Algorithm  asn1.ObjectIdentifier
			Parameters asn1.RawValue `asn1:"optional"`
		}
		Data []byte
	}))
}

// ECH returns Encrypted Client Hello keys as openssl ech and nginx write them: private keys, each
// followed by its ECHConfigList.
func (f *File) ECH() ([]tls.EncryptedClientHelloKey, error) {
	var keys []tls.EncryptedClientHelloKey
	var private []byte
	for _, b := range f.blocks {
		switch b.kind {
		case encryptedKey:
			return nil, fmt.Errorf("%w; Encrypted Client Hello needs its key as it is", ErrEncrypted)
		case key:
			parsed, err := parseAnyKey(b.der)
			ecdhKey, ok := parsed.(*ecdh.PrivateKey)
			if err != nil || !ok {
				return nil, errors.New("its private key is not an X25519 key in PKCS #8")
			}
			private = ecdhKey.Bytes()
		case echConfig:
			configs, err := splitECHConfigs(b.der)
			if err != nil {
				return nil, err
			}
			if private == nil {
				return nil, errors.New("an ECHCONFIG has no private key before it")
			}
			for _, config := range configs {
				keys = append(keys, tls.EncryptedClientHelloKey{Config: config, PrivateKey: private, SendAsRetry: true})
			}
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("it holds no ECHCONFIG, but %s", f.describe())
	}
	return keys, nil
}

// splitECHConfigs splits an ECHConfigList: a length, then configs with a version, a length and
// contents (RFC 9849 section 4).
func splitECHConfigs(list []byte) (configs [][]byte, err error) {
	input := cryptobyte.String(list)
	var rest, contents cryptobyte.String
	ok := input.ReadUint16LengthPrefixed(&rest) && input.Empty()
	for ok && !rest.Empty() {
		config := rest
		ok = rest.Skip(2) && rest.ReadUint16LengthPrefixed(&contents)
		configs = append(configs, config[:len(config)-len(rest)])
	}
	if !ok {
		return nil, errors.New("malformed ECHConfigList")
	}
	return configs, nil
}

// TicketKeys reads the keys of session tickets: 32 bytes a line, in hexadecimal or base64. It
// ignores empty lines and those that begin with "#". No error quotes a line.
func TicketKeys(data []byte) ([][32]byte, error) {
	var keys [][32]byte
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(data, utf8BOM)) {
		n++
		text := string(bytes.TrimSpace(line))
		if text == "" || text[0] == '#' {
			continue
		}
		key, err := hex.DecodeString(text)
		if err != nil {
			key, err = base64.StdEncoding.DecodeString(text)
		}
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("line %d is not a key of 32 bytes in hexadecimal or base64; make one with openssl rand -hex 32", n)
		}
		keys = append(keys, [32]byte(key))
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no key of session tickets; make one with openssl rand -hex 32")
	}
	return keys, nil
}
