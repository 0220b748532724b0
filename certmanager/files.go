package certmanager

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ergotls/ergotls/certmanager/internal/regular"
	"github.com/ergotls/ergotls/certmanager/internal/watch"
)

// Files is a [Source] that reads files. They may change at any time and in any way: replaced by
// rename, rewritten in place, swapped by Kubernetes. Every field is optional. For several pairs,
// use Dir or several Files in [Sources].
type Files struct {
	// Cert is a PEM chain, leaf first. Key is its private key, PEM in PKCS #8, PKCS #1 or SEC 1, not
	// encrypted; without Key, Signer and KeyStore, the key is in Cert.
	Cert, Key string

	// Signer is the key of Cert if that is not in a file but, for example, in an HSM. A handshake
	// waits up to 10 seconds for a signature. While one is overdue no other is requested. Handshakes
	// that fail for lack of a signature are reported as a [Warning] event.
	Signer crypto.Signer

	// KeyStore finds the key of Cert in a device. Cert may change to one for another of the device's
	// keys while the program runs.
	KeyStore KeyStore

	// Dir is a folder of pairs: each *.crt or *.pem file with the *.key file of the same name, or with
	// the key inside. CA certificates without a key and files whose name begins with a dot are
	// ignored. The default certificate is that of the first file by name. If several certificates with
	// the same kind of key cover a name, the one that expires last is served. A file that cannot be
	// used is skipped with a warning; it is an error if the file was in service or no other is left.
	Dir string

	// PKCS12 is a PKCS #12 file (.p12, .pfx), PKCS12Password a file whose first line is
	// its password; without it the password is empty.
	PKCS12, PKCS12Password string

	// ClientCAs and RootCAs are PEM bundles: the CAs that clients and servers are verified with.
	// Without RootCAs, servers are verified with the system's roots. A CA that cannot be read is
	// skipped with a warning; it is an error if the CA was in service or no other is left. A CA that
	// OpenSSL marks as not trusted for the use (TRUSTED CERTIFICATE) is always skipped.
	ClientCAs, RootCAs string

	// CRLs is a file of revocation lists, PEM or DER, each signed by a CA of one of the bundles, of a
	// served chain or of CRLIssuers. Any other list is skipped with a warning. The file may have up to
	// 128 MiB. It is parsed only when it changes.
	CRLs string

	// CRLIssuers is a PEM bundle of CAs that sign lists, such as intermediates of peers. They are not
	// trusted as CAs of peers, as they would be in ClientCAs.
	CRLIssuers string

	// ECHKeys is a PEM file of Encrypted Client Hello keys, RFC 9849: private keys,
	// each followed by its ECHCONFIG.
	ECHKeys string

	// TicketKeys is a file with the keys of session tickets, one a line: 32 bytes in hexadecimal or
	// base64. The first encrypts new tickets, all decrypt. The file replaces Options.TicketKeys.
	// Machines with the same file resume each other's sessions, under the conditions described there.
	// To rotate, add a new first key, and remove the last one when every machine has the new one.
	// Anyone who can read the file can resume the session of any client.
	TicketKeys string
}

// A KeyStore holds private keys, for example in an HSM.
type KeyStore interface {
	// Signer returns the private key of a public key, or an error. Load calls it when the certificate
	// has changed. Until it returns, no other change of the same Files is put in service. Other
	// sources do not wait.
	Signer(ctx context.Context, public crypto.PublicKey) (crypto.Signer, error)
}

// These limits keep a wrong path from filling the memory. The largest public CA bundles have 1 MiB,
// the largest revocation lists 100 MB.
const (
	maxFileSize = 16 << 20
	maxCRLSize  = 128 << 20 // of Files.CRLs
)

// named returns the paths of all files except those in Dir.
func (f Files) named() []string {
	all := []string{f.Cert, f.Key, f.PKCS12, f.PKCS12Password, f.ClientCAs, f.RootCAs, f.CRLs, f.CRLIssuers, f.ECHKeys, f.TicketKeys}
	return slices.DeleteFunc(all, func(path string) bool { return path == "" })
}

func (f Files) check() error {
	switch {
	case len(f.named()) == 0 && f.Dir == "":
		return fmt.Errorf("%w: Files names no file", ErrInvalid)
	case f.Cert == "" && (f.Key != "" || f.Signer != nil || f.KeyStore != nil):
		return fmt.Errorf("%w: Files.Key, Files.Signer or Files.KeyStore without Files.Cert", ErrInvalid)
	case f.Key != "" && f.Signer != nil, f.KeyStore != nil && (f.Key != "" || f.Signer != nil):
		return fmt.Errorf("%w: Files.Key, Files.Signer and Files.KeyStore: more than one is set; a certificate has one key", ErrInvalid)
	case f.PKCS12 == "" && f.PKCS12Password != "":
		return fmt.Errorf("%w: Files.PKCS12Password without Files.PKCS12", ErrInvalid)
	case slices.ContainsFunc(append(f.named(), f.Dir), func(path string) bool { return strings.Contains(path, "-----BEGIN") }):
		return fmt.Errorf("%w: Files has the contents of a file instead of its name; write them to a file, or use Static", ErrInvalid) // no text of it, which may be a key
	}
	return nil
}

// Load implements [Source].
func (f Files) Load(ctx context.Context, previous *Material) (*Material, error) {
	p := newParser(ctx, f, previous)
	pairs, err := p.read()
	if err != nil {
		return nil, err
	}
	if previous != nil && maps.Equal(p.known.sums, p.tag.sums) {
		return previous, nil
	}
	return p.parse(pairs)
}

// Watch implements [Source].
func (f Files) Watch(ctx context.Context, changed func(), _ func(Event)) error {
	return watch.Set{Files: f.named(), Dir: f.Dir, Match: isPairFile}.Run(ctx, changed)
}

// read reads all files once, so that the compared bytes are the parsed ones. The error of a folder
// entry goes to unread, so that the other entries can still be served.
func (p *parser) read() (pairs []string, err error) {
	f := p.files
	if err := f.check(); err != nil {
		return nil, err
	}
	p.data, p.unread = make(map[string][]byte), make(map[string]error)
	others := f
	others.CRLs = ""
	names := others.named()
	if f.Dir != "" {
		if pairs, err = listPairs(f.Dir); err != nil {
			return nil, err
		}
	}
	var errs []error
	for i, path := range append(names, pairs...) {
		p.pace.step()
		b, err := readFile(path, maxFileSize)
		switch {
		case err == nil:
			p.note(path, b)
		case i < len(names):
			errs = append(errs, err)
		default:
			p.unread[path], p.tag.sums[path] = err, sha256.Sum256([]byte(err.Error()))
		}
	}
	if err := p.readLists(f.CRLs); err != nil {
		errs = append(errs, err)
	}
	return pairs, errors.Join(errs...)
}

// note stores the bytes of a file.
func (p *parser) note(path string, b []byte) {
	p.data[path], p.tag.sums[path] = b, sha256.Sum256(b)
}

// readLists reads the file of revocation lists. It keeps the bytes only if they have changed: the
// file is large, and read at each poll.
func (p *parser) readLists(path string) error {
	if _, read := p.data[path]; read || path == "" { // the CAs are in the same file
		return nil
	}
	if before, known := p.known.sums[path]; known {
		sum := sha256.New()
		if err := copyFile(sum, path, maxCRLSize); err != nil {
			return err
		}
		if [sha256.Size]byte(sum.Sum(nil)) == before {
			p.tag.sums[path] = before
			return nil
		}
	}
	b, err := readFile(path, maxCRLSize)
	if err != nil {
		return err
	}
	p.note(path, b)
	return nil
}

// isPairFile reports whether a file of a folder may belong to a pair.
func isPairFile(base string) bool {
	ext := filepath.Ext(base)
	return !strings.HasPrefix(base, ".") && (ext == ".crt" || ext == ".pem" || ext == ".key")
}

// listPairs returns the certificate and key files of a folder in order of their names.
func listPairs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("folder of pairs (Files.Dir): %w", err)
	}
	var paths []string
	for _, e := range entries {
		if isPairFile(e.Name()) {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

func readFile(path string, most int64) ([]byte, error) {
	var b bytes.Buffer
	err := copyFile(&b, path, most)
	return b.Bytes(), err
}

// copyFile writes the contents of a file to w.
func copyFile(w io.Writer, path string, most int64) error {
	file, err := regular.Open(path, os.O_RDONLY, 0)
	switch {
	case errors.Is(err, regular.ErrNot):
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	case err != nil:
		return err
	}
	defer file.Close()
	n, err := io.Copy(w, io.LimitReader(file, most+1))
	switch {
	case err != nil:
		return err
	case n > most:
		return fmt.Errorf("%s: %w: it is larger than %d bytes", path, ErrInvalid, most)
	}
	return nil
}
