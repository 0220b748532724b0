// Package pemfile turns the bytes of certificate files into values: PEM and DER certificates, keys,
// revocation lists and Encrypted Client Hello keys, and PKCS #12. Start with [Parse]. It reads what
// crypto/tls, OpenSSL, Java and Windows write. What it cannot read it names: what was found, what
// is wanted, and the command that converts it. It has no clock and does no I/O, and no error has
// key material.
package pemfile

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrEncrypted says that a private key is encrypted.
var ErrEncrypted = errors.New("private key is encrypted")

// A File is a PEM or DER file taken apart.
type File struct {
	blocks []block
}

// block is one PEM block, or the whole of a DER file.
type block struct {
	kind  kind
	title string // of PEM
	der   []byte
}

// kind is what a block is for. The titles of keys do not say of which form they are.
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

// Parse takes the bytes of a file apart. A PEM block that is cut off, as a copy in progress leaves
// it, is an error and not silently a block less.
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

// split returns the PEM blocks of a file. Titles stand in lines of their own, which may be
// indented.
func split(data []byte) ([]block, error) {
	if !bytes.Contains(data, []byte("-----BEGIN ")) {
		return nil, nil
	}
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	// Files whose last line does not end were joined.
	data = bytes.ReplaceAll(data, []byte("----------BEGIN "), []byte("-----\n-----BEGIN "))
	var blocks []block
	var text []byte // the block that the lines are of, nil between blocks
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

// startsTitle says whether a line is the first part of one that begins a block.
func startsTitle(line []byte) bool {
	const begin = "-----BEGIN "
	n := min(len(line), len(begin))
	return n > 0 && len(line) < 64 && string(line[:n]) == begin[:n] && !bytes.Contains(line, []byte(`\n`))
}

// titleOf returns the title of a line that begins or ends a block. Titles are short: they are
// quoted in errors.
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

// HasCertificate says whether the file has a certificate.
func (f *File) HasCertificate() bool { return len(f.of(certificate)) > 0 }

// HasKey says whether the file has a private key, which may be encrypted.
func (f *File) HasKey() bool { return len(f.of(key, encryptedKey)) > 0 }
