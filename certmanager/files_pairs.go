package certmanager

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// The certificates of Files: pairs, folders of them, PKCS #12.

func (p *parser) pair() error {
	if p.files.Cert == "" {
		return nil
	}
	return p.add(p.files.Cert, p.files.Key, p.files.Signer, p.files.KeyStore)
}

// add adds the certificate of two files, of one file with both parts, or of one file and a signer,
// which store may have to find.
func (p *parser) add(certPath, keyPath string, signer crypto.Signer, store KeyStore) error {
	digest := p.digest(certPath, keyPath)
	if p.reuse(digest) {
		return nil
	}
	p.pace.step()
	file, err := p.open(certPath)
	if err != nil {
		return err
	}
	keys := []crypto.Signer{signer}
	if signer == nil && store == nil {
		if keys, err = p.keys(certPath, file, keyPath); err != nil {
			return err
		}
	}
	certs, err := inFile(certPath, file.Certificates)
	if err != nil {
		return err
	}
	if store != nil {
		if keys[0], err = p.find(certPath, certs.All, store); err != nil {
			return err
		}
	}
	err = p.make(tlsCertificate(certs.All, keys), certPath, digest, certs.Aside)
	if errors.Is(err, ErrMismatch) && keyPath != "" {
		err = fmt.Errorf("%w: the key in %s is of another", err, keyPath)
	}
	return err
}

// find asks the store for the key of the first certificate that is not a CA.
func (p *parser) find(path string, certs []*x509.Certificate, store KeyStore) (key crypto.Signer, err error) {
	defer recovered("the KeyStore for "+path, &err)
	leaf := certs[max(0, slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA }))]
	switch key, err = store.Signer(p.ctx, leaf.PublicKey); {
	case err != nil:
		return nil, fmt.Errorf("%s: %w: KeyStore: %w", path, ErrInvalid, err)
	case key == nil:
		return nil, fmt.Errorf("%s: %w: KeyStore returned neither a key nor an error", path, ErrInvalid)
	}
	return key, nil
}

// make adds a certificate if it can be served. Certificates of a folder that cannot be served are
// skipped.
func (p *parser) make(cert tls.Certificate, origin string, digest string, aside []pemfile.Aside) error {
	if _, err := newCertificate(cert, origin); err != nil {
		return err
	}
	p.put(filesCert{Certificate{Certificate: cert, Origin: origin}, asideErrors(origin, aside)}, digest)
	return nil
}

func (p *parser) keys(certPath string, certFile *pemfile.File, keyPath string) ([]crypto.Signer, error) {
	if keyPath == "" {
		return inFile(certPath, certFile.Keys)
	}
	file, err := p.open(keyPath)
	if err != nil {
		return nil, err
	}
	if !certFile.HasCertificate() && certFile.HasKey() && file.HasCertificate() && !file.HasKey() {
		return nil, fmt.Errorf("%s: %w: it has the private key, and %s the certificate: the two files are swapped", certPath, ErrInvalid, keyPath)
	}
	return inFile(keyPath, file.Keys)
}

// tlsCertificate uses the first key that belongs to one of the certificates.
func tlsCertificate(certs []*x509.Certificate, keys []crypto.Signer) tls.Certificate {
	cert := tls.Certificate{PrivateKey: keys[0]}
	if i := slices.IndexFunc(keys, func(key crypto.Signer) bool {
		return slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return trust.IsKeyOf(key, c) })
	}); i >= 0 {
		cert.PrivateKey = keys[i]
	}
	for _, c := range certs {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

func (p *parser) pkcs12() error {
	path := p.files.PKCS12
	if path == "" {
		return nil
	}
	digest := p.digest(path, p.files.PKCS12Password)
	if p.reuse(digest) {
		return nil
	}
	password, _, _ := bytes.Cut(bytes.TrimPrefix(p.data[p.files.PKCS12Password], []byte("\xef\xbb\xbf")), []byte("\n")) // without a byte-order mark
	cert, err := inFile(path, func() (tls.Certificate, error) {
		key, certs, err := pemfile.PKCS12(p.data[path], strings.TrimSuffix(string(password), "\r"))
		if err != nil {
			return tls.Certificate{}, err
		}
		return tlsCertificate(certs, []crypto.Signer{key}), nil
	})
	if err != nil {
		return err
	}
	return p.make(cert, path, digest, nil)
}

// dir adds the pairs of a folder. An entry that cannot be used is skipped with a warning, so that
// the others can still be served. It is an error if the entry was in service, or if no other is
// left.
func (p *parser) dir(paths []string) error {
	var errs, lost []error
	before := len(p.m.Certificates)
	for _, path := range paths {
		if filepath.Ext(path) == ".key" {
			continue
		}
		err := p.entry(path, paths)
		switch {
		case err == nil:
		case p.inService(path):
			lost = append(lost, err)
		default:
			errs = append(errs, err)
		}
	}
	if len(lost) > 0 || len(errs) > 0 && len(p.m.Certificates) == before {
		return errors.Join(some(append(lost, errs...), enough)...)
	}
	for _, err := range some(errs, enough) {
		p.m.Warnings = append(p.m.Warnings, fmt.Errorf("set aside: %w", err))
	}
	return nil
}

// entry adds the certificate of one file of a folder unless it is a CA.
func (p *parser) entry(path string, paths []string) error {
	keyPath := strings.TrimSuffix(path, filepath.Ext(path)) + ".key"
	if err := cmp.Or(p.unread[path], p.unread[keyPath]); err != nil {
		return err
	}
	if _, ok := p.data[keyPath]; ok {
		return p.add(path, keyPath, nil, nil)
	}
	file, err := p.open(path)
	if err != nil {
		return err
	}
	if file.HasKey() {
		return p.add(path, "", nil, nil)
	}
	certs, err := inFile(path, file.Certificates)
	if err != nil {
		return err
	}
	first := certs.All[0]
	for _, other := range paths {
		if p.hasKeyOf(other, first) {
			return fmt.Errorf("%s: %w: its private key is in %s; name that %s", path, ErrInvalid, other, keyPath)
		}
	}
	if first.IsCA && len(first.DNSNames)+len(first.IPAddresses) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w: it holds no private key, and there is no %s", path, ErrInvalid, keyPath)
}

// hasKeyOf reports whether a file of the folder that belongs to no pair has the key of a
// certificate.
func (p *parser) hasKeyOf(path string, cert *x509.Certificate) bool {
	keys, known := p.alone[path]
	if !known {
		if bytes.Contains(p.data[path], []byte("PRIVATE KEY-----")) {
			if file, err := p.open(path); err == nil {
				keys, _ = inFile(path, file.Keys)
			}
		}
		p.alone[path] = keys
	}
	return slices.ContainsFunc(keys, func(key crypto.Signer) bool { return trust.IsKeyOf(key, cert) })
}
