package certmanager

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
)

// parser makes material of the bytes of Files.
type parser struct {
	ctx    context.Context // of Load
	files  Files
	data   map[string][]byte
	unread map[string]error // of the folder's entries, why not
	before *Material        // the previous one, empty at first
	known  *filesTag        // of before
	m      *Material
	tag    *filesTag
}

func newParser(ctx context.Context, files Files, previous *Material) *parser {
	p := &parser{ctx: ctx, files: files, before: previous, m: &Material{}, tag: &filesTag{certs: make(map[[sha256.Size]byte]filesCert)}}
	if previous == nil {
		p.before = &Material{Tag: &filesTag{}}
	}
	p.m.Tag, p.known = p.tag, p.before.Tag.(*filesTag)
	return p
}

func (p *parser) parse(pairs []string) (*Material, error) {
	steps := []func() error{p.pair, p.pkcs12, func() error { return p.dir(pairs) }, p.bundles}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if p.files.Dir != "" && len(pairs) == 0 && p.files.paths()[0] == p.files.Dir {
		return nil, fmt.Errorf("%s: %w: the folder has no pair, which is a *.crt or *.pem and a *.key of the same name", p.files.Dir, ErrNoCertificate)
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

func (p *parser) bundles() (err error) {
	if p.m.ClientCAs, err = p.bundle(p.files.ClientCAs, x509.ExtKeyUsageClientAuth, p.before.ClientCAs); err != nil {
		return err
	}
	if p.m.RootCAs, err = p.bundle(p.files.RootCAs, x509.ExtKeyUsageServerAuth, p.before.RootCAs); err != nil {
		return err
	}
	if p.m.CRLIssuers, err = p.bundle(p.files.CRLIssuers, x509.ExtKeyUsageAny, p.before.CRLIssuers); err != nil {
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

// bundle reads a file of CAs that peers of a usage are verified with. An empty one would trust
// nobody.
func (p *parser) bundle(path string, usage x509.ExtKeyUsage, before []*x509.Certificate) ([]*x509.Certificate, error) {
	if path == "" {
		return nil, nil
	}
	file, err := p.open(path)
	if err != nil {
		return nil, err
	}
	var aside []pemfile.Aside
	var rejected []error
	certs, err := inFile(path, func() (certs []*x509.Certificate, err error) {
		certs, aside, rejected, err = file.CAs(usage)
		return certs, err
	})
	if err != nil {
		return nil, err
	}
	for _, err := range some(rejected, enough) {
		p.m.Warnings = append(p.m.Warnings, fmt.Errorf("%s: set aside: %w", path, err))
	}
	return certs, p.aside(path, "CAs", subjects(before), subjects(certs), aside)
}

func (p *parser) lists(path string) ([]*x509.RevocationList, error) {
	crls := &p.tag.crls
	if p.known.crls.sum == crls.sum {
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
	return crls.lists, p.aside(path, "revocation lists", listIssuers(p.before.CRLs), listIssuers(crls.lists), crls.aside)
}
