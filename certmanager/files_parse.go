package certmanager

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
	"github.com/ergotls/ergotls/certmanager/internal/trust"
)

// parser makes a Material from the bytes of Files.
type parser struct {
	ctx    context.Context // of Load
	files  Files
	data   map[string][]byte
	unread map[string]error // errors of folder entries that were not read
	before *Material        // the previous one, empty at first
	known  *filesTag        // the tag of before
	m      *Material
	tag    *filesTag
	alone  map[string][]crypto.Signer // keys of folder entries, as hasKeyOf found them
	pace   pacer
}

func newParser(ctx context.Context, files Files, previous *Material) *parser {
	p := &parser{
		ctx: ctx, files: files, before: previous, m: &Material{}, alone: make(map[string][]crypto.Signer),
		tag: &filesTag{sums: make(map[string][sha256.Size]byte), certs: make(map[string]filesCert)},
	}
	if previous == nil {
		p.before = &Material{Tag: &filesTag{}}
	}
	p.m.Tag, p.known = p.tag, p.before.Tag.(*filesTag)
	p.pace.on = len(p.before.Certificates) > 0
	return p
}

func (p *parser) parse(pairs []string) (*Material, error) {
	steps := []func() error{p.pair, p.pkcs12, func() error { return p.dir(pairs) }, p.bundles}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if p.files.Dir != "" && len(pairs) == 0 && len(p.files.named()) == 0 {
		return nil, fmt.Errorf("%s: %w: the folder has no pair, which is a *.crt or *.pem and a *.key of the same name", p.files.Dir, ErrNoCertificate)
	}
	return p.m, nil
}

// inFile adds the path to an error of parse. It returns a panic as an error: the crypto packages
// panic in FIPS 140-only mode, and no file may end the program.
func inFile[T any](path string, parse func() (T, error)) (v T, err error) {
	defer recovered("a package that reads "+path, &err)
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

// recovered turns a panic into an error. It must be deferred.
func recovered(who string, err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%w: %s panicked: %s", ErrInvalid, who, trust.Cut(fmt.Sprint(v), 200))
	}
}

func (p *parser) open(path string) (*pemfile.File, error) {
	return inFile(path, func() (*pemfile.File, error) { return pemfile.Parse(p.data[path]) })
}

// parsed parses a file if its path is set.
func parsed[T any](p *parser, path string, parse func(*pemfile.File) (T, error)) (v T, err error) {
	if path == "" {
		return v, nil
	}
	file, err := p.open(path)
	if err != nil {
		return v, err
	}
	return inFile(path, func() (T, error) { return parse(file) })
}

func (p *parser) bundles() error {
	f := p.files
	return cmp.Or(
		p.bundle(f.ClientCAs, x509.ExtKeyUsageClientAuth, p.before.ClientCAs, &p.m.ClientCAs),
		p.bundle(f.RootCAs, x509.ExtKeyUsageServerAuth, p.before.RootCAs, &p.m.RootCAs),
		p.bundle(f.CRLIssuers, x509.ExtKeyUsageAny, p.before.CRLIssuers, &p.m.CRLIssuers),
		p.lists(f.CRLs),
		p.ticketKeys(f.TicketKeys),
		p.echKeys(f.ECHKeys),
	)
}

// bundle reads a file of CAs that verify peers of a usage. An empty bundle is an error, because it
// would trust no peer.
func (p *parser) bundle(path string, usage x509.ExtKeyUsage, before []*x509.Certificate, cas *[]*x509.Certificate) error {
	found, err := parsed(p, path, func(file *pemfile.File) (pemfile.Found[*x509.Certificate], error) { return file.CAs(usage) })
	if err != nil {
		return err
	}
	*cas = found.All
	return keep(p, path, "CAs", before, found, func(ca *x509.Certificate) []byte { return ca.RawSubject })
}

func (p *parser) lists(path string) (err error) {
	found := p.known.crls
	if before, known := p.known.sums[path]; !known || before != p.tag.sums[path] {
		if found, err = parsed(p, path, (*pemfile.File).Lists); err != nil {
			return err
		}
	}
	p.tag.crls, p.m.CRLs = found, found.All
	return keep(p, path, "revocation lists", p.before.CRLs, found, func(l *x509.RevocationList) []byte { return l.RawIssuer })
}

func (p *parser) echKeys(path string) (err error) {
	p.m.ECHKeys, err = parsed(p, path, (*pemfile.File).ECH)
	return err
}

func (p *parser) ticketKeys(path string) (err error) {
	if path != "" {
		p.m.TicketKeys, err = inFile(path, func() ([][32]byte, error) { return pemfile.TicketKeys(p.data[path]) })
	}
	return err
}

// filesTag is the Tag by which Load recognizes the previous Material.
type filesTag struct {
	sums  map[string][sha256.Size]byte // of every file, by its path
	certs map[string]filesCert         // by digest
	crls  pemfile.Found[*x509.RevocationList]
}

// filesCert is a finished certificate, and the skipped entries of its file.
type filesCert struct {
	Certificate
	aside []error
}

// reuse adds the certificate made earlier from the same bytes, if there is one.
func (p *parser) reuse(digest string) bool {
	c, ok := p.known.certs[digest]
	if ok {
		p.put(c, digest)
	}
	return ok
}

func (p *parser) put(c filesCert, digest string) {
	p.m.Certificates = append(p.m.Certificates, c.Certificate)
	p.m.Warnings = append(p.m.Warnings, c.aside...)
	p.tag.certs[digest] = c
}

// digest identifies a certificate made from two files, or from one if second is empty. It does not
// cover the Signer, which never changes for a source.
func (p *parser) digest(first, second string) string {
	return fmt.Sprintf("%s %x %x", first, p.tag.sums[first], p.tag.sums[second])
}

// inService reports whether the previous Material had a certificate from a file.
func (p *parser) inService(path string) bool {
	return slices.ContainsFunc(p.before.Certificates, func(c Certificate) bool { return c.Origin == path })
}

// keep warns about unusable entries of a file. It returns an error if one may replace an entry in
// service: then fewer of its name are left. An entry without a name may replace any. before and now
// are the entries that the file had and has.
func keep[T any](p *parser, path, what string, before []T, now pemfile.Found[T], name func(T) []byte) error {
	p.m.Warnings = append(p.m.Warnings, asideErrors(path, now.Aside)...)
	lost := make(map[string]int)
	for _, v := range before {
		lost[trust.CanonicalName(name(v))]++
	}
	for _, v := range now.All {
		lost[trust.CanonicalName(name(v))]--
	}
	for name, n := range lost {
		if n <= 0 {
			continue
		}
		i := slices.IndexFunc(now.Aside, func(a pemfile.Aside) bool {
			return !a.Distrusted && (a.Name == nil || trust.CanonicalName(a.Name) == name)
		})
		if i >= 0 {
			return fmt.Errorf("%s: %w: one of the %s that are in service would be lost: %w", path, ErrInvalid, what, now.Aside[i].Err)
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

// enough is how many errors of one kind are reported.
const enough = 10

// some limits the number of errors to most.
func some(errs []error, most int) []error {
	if len(errs) <= most {
		return errs
	}
	return append(errs[:most:most], fmt.Errorf("and %d more like these", len(errs)-most))
}
