package certmanager

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
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

// parser makes material of the bytes of Files.
type parser struct {
	ctx    context.Context // of Load
	files  Files
	data   map[string][]byte
	unread map[string]error // of the folder's entries, why not
	known  *filesTag        // of the previous Material; nil at first
	m      *Material
	tag    *filesTag
}

// reuse adds a certificate that was made before of the same bytes.
func (p *parser) reuse(digest [sha256.Size]byte) bool {
	if p.known == nil {
		return false
	}
	c, ok := p.known.certs[digest]
	if ok {
		p.put(c, digest)
	}
	return ok
}

func (p *parser) put(c filesCert, digest [sha256.Size]byte) {
	p.m.Certificates = append(p.m.Certificates, c.Certificate)
	p.m.Warnings = append(p.m.Warnings, c.aside...)
	p.tag.certs[digest] = c
}

func (p *parser) parse(pairs []string) (*Material, error) {
	steps := []func() error{p.pair, p.pkcs12, func() error { return p.dir(pairs) }, p.bundles}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p.m, nil
}

// inFile says of which file an error of parsing is. No file ends the program, whatever panics
// below: the crypto packages do in FIPS 140-only mode.
func inFile[T any](path string, parse func() (T, error)) (v T, err error) {
	defer recovered(path, &err)
	v, err = parse()
	switch {
	case err == nil:
	case errors.Is(err, ErrEncryptedKey):
		err = fmt.Errorf("%s: %w", path, err)
	default:
		err = fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
	}
	return v, err
}

// recovered makes an error of a panic. It is to be deferred.
func recovered(origin string, err *error) {
	if r := recover(); r != nil {
		text := fmt.Sprint(r)
		*err = fmt.Errorf("%s: %w: a package that reads it panicked: %s", origin, ErrInvalid, text[:min(len(text), 200)])
	}
}

func (p *parser) open(path string) (*pemfile.File, error) {
	return inFile(path, func() (*pemfile.File, error) { return pemfile.Parse(p.data[path]) })
}

func (p *parser) pair() error {
	if p.files.Cert == "" {
		return nil
	}
	return p.add(p.files.Cert, p.files.Key, p.files.Signer, p.files.KeyStore)
}

// add makes a certificate of two files, of one that holds both, or of one and a signer, which may
// have to be found.
func (p *parser) add(certPath, keyPath string, signer crypto.Signer, store KeyStore) error {
	digest := p.digest(certPath, keyPath)
	if p.reuse(digest) {
		return nil
	}
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
	certs, aside, err := p.certificates(certPath, file)
	if err != nil {
		return err
	}
	if store != nil {
		if keys[0], err = p.find(certPath, certs, store); err != nil {
			return err
		}
	}
	err = p.make(tlsCertificate(certs, keys), certPath, digest, aside)
	if errors.Is(err, ErrMismatch) && keyPath != "" {
		err = fmt.Errorf("%w: the key in %s is of another", err, keyPath)
	}
	return err
}

// find asks the store for the key of the first certificate that is not a CA's.
func (p *parser) find(path string, certs []*x509.Certificate, store KeyStore) (key crypto.Signer, err error) {
	defer recovered(path, &err)
	leaf := certs[max(0, slices.IndexFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA }))]
	switch key, err = store.Signer(p.ctx, leaf.PublicKey); {
	case err != nil:
		return nil, fmt.Errorf("%s: %w: KeyStore: %w", path, ErrInvalid, err)
	case key == nil:
		return nil, fmt.Errorf("%s: %w: KeyStore returned neither a key nor an error", path, ErrInvalid)
	}
	return key, nil
}

// make adds a certificate if it can be served: of several in a folder those that cannot are left
// out.
func (p *parser) make(cert tls.Certificate, origin string, digest [sha256.Size]byte, aside []pemfile.Aside) error {
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

// certificates returns the certificates of a file, and a warning for each that cannot be read.
func (p *parser) certificates(path string, file *pemfile.File) ([]*x509.Certificate, []pemfile.Aside, error) {
	var aside []pemfile.Aside
	certs, err := inFile(path, func() (certs []*x509.Certificate, err error) {
		certs, aside, err = file.Certificates()
		return certs, err
	})
	return certs, aside, err
}

// tlsCertificate takes the first of the keys that belongs to a certificate.
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

// digest stands for a certificate that was made of two files, the second of which may be
// none. Files of a Source have one Signer each, which does not count.
func (p *parser) digest(first, second string) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat([]byte(first), []byte{0}, p.data[first], []byte{0}, p.data[second]))
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
	password, _, _ := bytes.Cut(p.data[p.files.PKCS12Password], []byte("\n"))
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

// dir adds the pairs of a folder. An entry that cannot be used is set aside with a warning, so that
// it does not keep the others from service. It is an error if it was in service, or if none is
// left.
func (p *parser) dir(paths []string) error {
	var errs, lost []error
	before, served := len(p.m.Certificates), p.served()
	for _, path := range paths {
		if filepath.Ext(path) == ".key" {
			continue
		}
		err := p.entry(path, paths)
		switch {
		case err == nil:
		case served[path]:
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

// enough is how many errors of one kind are told.
const enough = 10

// some bounds errors.
func some(errs []error, most int) []error {
	if len(errs) <= most {
		return errs
	}
	return append(errs[:most:most], fmt.Errorf("and %d more like these", len(errs)-most))
}

// served returns the origins of what is in service.
func (p *parser) served() map[string]bool {
	origins := make(map[string]bool)
	if p.known != nil {
		for _, c := range p.known.certs {
			origins[c.Origin] = true
		}
	}
	return origins
}

// entry adds the certificate of one file of a folder, if it is not a CA's.
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
	certs, _, err := p.certificates(path, file)
	if err != nil {
		return err
	}
	for _, other := range paths {
		if p.hasKeyOf(other, certs[0]) {
			return fmt.Errorf("%s: %w: its private key is in %s; name that %s", path, ErrInvalid, other, keyPath)
		}
	}
	if certs[0].IsCA && len(certs[0].DNSNames)+len(certs[0].IPAddresses) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w: it holds no private key, and there is no %s", path, ErrInvalid, keyPath)
}

// hasKeyOf says whether a file of the folder that is half of no pair holds the key of a
// certificate.
func (p *parser) hasKeyOf(path string, cert *x509.Certificate) bool {
	if data := p.data[path]; !bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		return false
	}
	file, err := p.open(path)
	if err != nil {
		return false
	}
	keys, err := inFile(path, file.Keys)
	return err == nil && slices.ContainsFunc(keys, func(key crypto.Signer) bool { return trust.IsKeyOf(key, cert) })
}

func (p *parser) bundles() (err error) {
	if p.m.ClientCAs, err = p.bundle(p.files.ClientCAs); err != nil {
		return err
	}
	if p.m.RootCAs, err = p.bundle(p.files.RootCAs); err != nil {
		return err
	}
	if p.m.CRLIssuers, err = p.bundle(p.files.CRLIssuers); err != nil {
		return err
	}
	if path := p.files.CRLs; path != "" {
		if p.m.CRLs, err = p.lists(path); err != nil {
			return err
		}
	}
	if path := p.files.TicketKeys; path != "" {
		if p.m.TicketKeys, err = inFile(path, func() ([][32]byte, error) { return pemfile.TicketKeys(p.data[path]) }); err != nil {
			return err
		}
	}
	if path := p.files.ECHKeys; path != "" {
		file, err := p.open(path)
		if err != nil {
			return err
		}
		if p.m.ECHKeys, err = inFile(path, file.ECH); err != nil {
			return err
		}
	}
	return nil
}

// bundle reads a file of CAs. An empty one would trust nobody.
func (p *parser) bundle(path string) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	file, err := p.open(path)
	if err != nil {
		return nil, err
	}
	certs, aside, err := p.certificates(path, file)
	if err != nil {
		return nil, err
	}
	now := make(tally)
	for _, c := range certs {
		now[string(c.RawSubject)]++
	}
	return certs, p.aside(fileOf{path, "CAs"}, now, aside)
}

func (p *parser) lists(path string) ([]*x509.RevocationList, error) {
	crls := &p.tag.crls
	if p.known != nil && p.known.crls.sum == crls.sum {
		*crls = p.known.crls
	} else {
		file, err := p.open(path)
		if err != nil {
			return nil, err
		}
		if crls.lists, err = inFile(path, func() (lists []*x509.RevocationList, err error) {
			lists, crls.aside, err = file.Lists()
			return lists, err
		}); err != nil {
			return nil, err
		}
	}
	now := make(tally)
	for _, l := range crls.lists {
		now[string(l.RawIssuer)]++
	}
	return crls.lists, p.aside(fileOf{path, "revocation lists"}, now, crls.aside)
}

// aside warns of what cannot be read in a file. It is an error if that takes the place of what was
// in service: then fewer of its name are left. What has no name may have been any.
func (p *parser) aside(file fileOf, now tally, aside []pemfile.Aside) error {
	p.tag.names[file] = now
	p.m.Warnings = append(p.m.Warnings, asideErrors(file.path, aside)...)
	if p.known == nil {
		return nil
	}
	for name, before := range p.known.names[file] {
		if now[name] >= before {
			continue
		}
		if i := slices.IndexFunc(aside, func(a pemfile.Aside) bool { return a.Name == nil || string(a.Name) == name }); i >= 0 {
			return fmt.Errorf("%s: %w: one of the %s that are in service would be lost: %w", file.path, ErrInvalid, file.kind, aside[i].Err)
		}
	}
	return nil
}

func asideErrors(path string, aside []pemfile.Aside) []error {
	var errs []error
	for _, a := range aside {
		errs = append(errs, fmt.Errorf("%s: set aside: %w", path, a.Err))
	}
	return some(errs, enough)
}
