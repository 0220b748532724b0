// Package pemfile parses certificate files: PEM and DER certificates, keys, revocation lists and
// Encrypted Client Hello keys, and PKCS #12. Start with [Parse]. It reads the output of crypto/tls,
// OpenSSL, Java and Windows. For other contents its errors name what was found, what is wanted, and
// the command to convert it. It uses no clock and no I/O, and its errors have no key material.
package pemfile

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrEncrypted means that a private key is encrypted.
var ErrEncrypted = errors.New("private key is encrypted")

// A File is a parsed PEM or DER file.
type File struct {
	blocks []block
}

// block is one PEM block, or a whole DER file.
type block struct {
	kind  kind
	title string // the PEM title
	der   []byte
}

// kind is the kind of a block. The title of a key does not tell its form reliably.
type kind int

const (
	other kind = iota
	certificate
	key
	encryptedKey
	list
	echConfig
)

func kindOf(title string, headers map[string]string) kind {
	switch {
	case title == "CERTIFICATE", title == "X509 CERTIFICATE", title == "TRUSTED CERTIFICATE":
		return certificate
	case title == "X509 CRL":
		return list
	case title == "ECHCONFIG":
		return echConfig
	case title == "ENCRYPTED PRIVATE KEY", headers["DEK-Info"] != "", strings.Contains(headers["Proc-Type"], "ENCRYPTED"):
		return encryptedKey
	case title == "OPENSSH PRIVATE KEY":
		return other
	case title == "PRIVATE KEY", strings.HasSuffix(title, " PRIVATE KEY"):
		return key
	}
	return other
}

// Parse splits a file into its blocks. A truncated PEM block, as in an unfinished copy, is an error
// rather than silently dropped.
func Parse(data []byte) (*File, error) {
	blocks, err := split(data)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		if blocks = fromDER(data); len(blocks) == 0 {
			return nil, errors.New(unreadable(data))
		}
	}
	return &File{blocks: blocks}, nil
}

var utf8BOM = []byte("\xef\xbb\xbf")

// split returns the PEM blocks of a file. Titles are on lines of their own, which may be indented.
func split(data []byte) ([]block, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		return nil, nil
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	// The file was joined from files without a final newline.
	data = bytes.ReplaceAll(data, []byte("----------BEGIN "), []byte("-----\n-----BEGIN "))
	var blocks []block
	var text []byte // the current block, nil between blocks
	var title string
	var begun int
	damaged := func() error {
		return fmt.Errorf("the PEM block %q that begins in line %d is damaged or cut off", title, begun)
	}
	line := 0
	for raw := range bytes.Lines(data) {
		line++
		trimmed := bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(raw), utf8BOM))
		if begin, ok := titleOf(trimmed, "-----BEGIN "); ok {
			if text != nil {
				return nil, damaged()
			}
			title, begun, text = begin, line, []byte{}
		}
		if text == nil {
			if unended := raw[len(raw)-1] != '\n'; unended && startsTitle(trimmed) {
				return nil, errors.New("its last PEM block is cut off")
			}
			continue
		}
		text = append(append(text, trimmed...), '\n')
		if end, ok := titleOf(trimmed, "-----END "); ok {
			decoded, _ := pem.Decode(text)
			if decoded == nil || end != title {
				return nil, damaged()
			}
			blocks = append(blocks, block{kindOf(title, decoded.Headers), title, decoded.Bytes})
			text = nil
		}
	}
	if text != nil {
		return nil, damaged()
	}
	return blocks, nil
}

// startsTitle reports whether a line is a prefix of one that begins a block.
func startsTitle(line []byte) bool {
	const begin = "-----BEGIN "
	n := min(len(line), len(begin))
	return n > 0 && len(line) < 64 && string(line[:n]) == begin[:n] && !bytes.Contains(line, []byte(`\n`))
}

// titleOf returns the title of a line that begins or ends a block. Long titles are refused, since
// errors quote them.
func titleOf(line []byte, prefix string) (title string, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(prefix))
	if !ok {
		return "", false
	}
	rest, ok = bytes.CutSuffix(rest, []byte("-----"))
	return string(rest), ok && len(rest) <= 64
}

func (f *File) of(kinds ...kind) []block {
	var some []block
	for _, b := range f.blocks {
		if slices.Contains(kinds, b.kind) {
			some = append(some, b)
		}
	}
	return some
}

// HasCertificate reports whether the file has a certificate.
func (f *File) HasCertificate() bool { return len(f.of(certificate)) > 0 }

// HasKey reports whether the file has a private key, which may be encrypted.
func (f *File) HasKey() bool { return len(f.of(key, encryptedKey)) > 0 }
