package certmanager

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"slices"
)

// decodePEM returns all blocks of a file. A block that is cut off, as a copy in
// progress leaves it, is an error and not silently fewer blocks.
func decodePEM(data []byte, path string) ([]*pem.Block, error) {
	var blocks []*pem.Block
	begun := bytes.Count(data, []byte("-----BEGIN "))
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		blocks, data = append(blocks, block), rest
	}
	switch {
	case begun == 0:
		return nil, fmt.Errorf("%s: %w: it is not PEM", path, ErrInvalid)
	case len(blocks) != begun:
		return nil, fmt.Errorf("%s: %w: %d of its %d PEM blocks are damaged or cut off", path, ErrInvalid, begun-len(blocks), begun)
	}
	return blocks, nil
}

func isKeyBlock(b *pem.Block) bool {
	return b.Type == "ENCRYPTED PRIVATE KEY" || slices.Contains([]string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"}, b.Type)
}

// parseKey reads a PKCS #8, PKCS #1 or SEC 1 private key. No error quotes its bytes.
func parseKey(blocks []*pem.Block, path string) (crypto.Signer, error) {
	i := slices.IndexFunc(blocks, isKeyBlock)
	if i < 0 {
		return nil, fmt.Errorf("%s: %w: it holds no private key", path, ErrInvalid)
	}
	block := blocks[i]
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
		return nil, fmt.Errorf("%s: %w; decrypt it with openssl pkey, and let file permissions protect it", path, ErrEncryptedKey)
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: its private key cannot be parsed", path, ErrInvalid)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: %w: its private key is of type %T, which cannot sign", path, ErrInvalid, key)
	}
	return signer, nil
}

// certificateBlocks returns the DER of the certificates among the blocks.
func certificateBlocks(blocks []*pem.Block) [][]byte {
	var ders [][]byte
	for _, b := range blocks {
		if b.Type == "CERTIFICATE" {
			ders = append(ders, b.Bytes)
		}
	}
	return ders
}

func parseBundle(data []byte, path string) ([]*x509.Certificate, error) {
	blocks, err := decodePEM(data, path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, der := range certificateBlocks(blocks) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: %w: it holds no certificate; an empty bundle would trust nobody", path, ErrInvalid)
	}
	return certs, nil
}

// parseCRLs reads one DER list or any number of PEM ones.
func parseCRLs(data []byte, path string) ([]*x509.RevocationList, error) {
	ders := [][]byte{data}
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		blocks, err := decodePEM(data, path)
		if err != nil {
			return nil, err
		}
		ders = nil
		for _, b := range blocks {
			if b.Type == "X509 CRL" {
				ders = append(ders, b.Bytes)
			}
		}
	}
	var lists []*x509.RevocationList
	for _, der := range ders {
		list, err := parseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 {
		return nil, fmt.Errorf("%s: %w: it holds no revocation list", path, ErrInvalid)
	}
	return lists, nil
}

// parseECH reads Encrypted Client Hello keys as openssl ech and nginx do: private keys
// (PKCS #8), each followed by the ECHConfigList that belongs to it.
func parseECH(data []byte, path string) ([]tls.EncryptedClientHelloKey, error) {
	blocks, err := decodePEM(data, path)
	if err != nil {
		return nil, err
	}
	var keys []tls.EncryptedClientHelloKey
	var private []byte
	for _, b := range blocks {
		switch b.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
			ecdhKey, ok := key.(*ecdh.PrivateKey)
			if err != nil || !ok {
				return nil, fmt.Errorf("%s: %w: its private key is not an X25519 key in PKCS #8", path, ErrInvalid)
			}
			private = ecdhKey.Bytes()
		case "ECHCONFIG":
			configs, err := splitECHConfigs(b.Bytes)
			if err != nil || private == nil {
				return nil, fmt.Errorf("%s: %w: an ECHCONFIG is malformed or has no private key before it", path, ErrInvalid)
			}
			for _, config := range configs {
				keys = append(keys, tls.EncryptedClientHelloKey{Config: config, PrivateKey: private, SendAsRetry: true})
			}
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: %w: it holds no ECHCONFIG", path, ErrInvalid)
	}
	return keys, nil
}

// splitECHConfigs takes an ECHConfigList apart: a length, then configs of a version, a
// length and contents, RFC 9849 section 4.
func splitECHConfigs(list []byte) ([][]byte, error) {
	malformed := fmt.Errorf("%w: malformed ECHConfigList", ErrInvalid)
	if len(list) < 2 || int(binary.BigEndian.Uint16(list)) != len(list)-2 {
		return nil, malformed
	}
	var configs [][]byte
	for rest := list[2:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, malformed
		}
		size := 4 + int(binary.BigEndian.Uint16(rest[2:]))
		if size > len(rest) {
			return nil, malformed
		}
		configs, rest = append(configs, rest[:size]), rest[size:]
	}
	return configs, nil
}
