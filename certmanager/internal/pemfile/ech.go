package pemfile

import (
	"crypto/ecdh"
	"crypto/tls"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
)

// ECH returns Encrypted Client Hello keys as openssl ech and nginx write them: private keys, each
// followed by the ECHConfigList that belongs to it.
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

// splitECHConfigs takes an ECHConfigList apart: a length, then configs of a version, a length and
// contents, RFC 9849 section 4.
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
