package certmanager

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
)

// What Files takes over from what they were at the last Load, and what must not be lost of it.

// filesTag is what Load finds in its previous Material.
type filesTag struct {
	sums  map[string][sha256.Size]byte // of every file, by its path
	certs map[string]filesCert         // by digest
	crls  filesLists
}

// filesCert is a certificate that was made, and what was left out of its file.
type filesCert struct {
	Certificate
	aside []error
}

// filesLists are the revocation lists of a file, and what was left out of it.
type filesLists struct {
	lists []*x509.RevocationList
	aside []pemfile.Aside
}

// reuse adds a certificate that was made before of the same bytes.
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

// digest stands for a certificate that was made of two files, the second of which may be
// none. Files of a Source have one Signer each, which does not count.
func (p *parser) digest(first, second string) string {
	return fmt.Sprintf("%s %x %x", first, p.tag.sums[first], p.tag.sums[second])
}

// inService says whether a certificate came from a file.
func (p *parser) inService(path string) bool {
	return slices.ContainsFunc(p.before.Certificates, func(c Certificate) bool { return c.Origin == path })
}

// keep warns of what cannot be read in a file. It is an error if that takes the place of what was
// in service: then fewer of its name are left. What has no name may have been any. before and now
// are what the file had, and has.
func keep[T any](p *parser, path, what string, before, now []T, name func(T) []byte, aside []pemfile.Aside) error {
	p.m.Warnings = append(p.m.Warnings, asideErrors(path, aside)...)
	lost := make(map[string]int)
	for _, v := range before {
		lost[string(name(v))]++
	}
	for _, v := range now {
		lost[string(name(v))]--
	}
	for name, n := range lost {
		i := slices.IndexFunc(aside, func(a pemfile.Aside) bool { return a.Name == nil || string(a.Name) == name })
		if n > 0 && i >= 0 {
			return fmt.Errorf("%s: %w: one of the %s that are in service would be lost: %w", path, ErrInvalid, what, aside[i].Err)
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

// enough is how many errors of one kind are told.
const enough = 10

// some bounds errors.
func some(errs []error, most int) []error {
	if len(errs) <= most {
		return errs
	}
	return append(errs[:most:most], fmt.Errorf("and %d more like these", len(errs)-most))
}
