package certmanager

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/ergotls/ergotls/certmanager/internal/pemfile"
)

// What Files takes over from what they were at the last Load, and what must not be lost of it.

// filesTag is what Load finds in its previous Material.
type filesTag struct {
	sum   [sha256.Size]byte // of all files
	certs map[[sha256.Size]byte]filesCert
	crls  filesLists
}

// filesCert is a certificate that was made, and what was left out of its file.
type filesCert struct {
	Certificate
	aside []error
}

// filesLists are the revocation lists of a file, and what was left out of it.
type filesLists struct {
	sum   [sha256.Size]byte // of the file
	lists []*x509.RevocationList
	aside []pemfile.Aside
}

// reuse adds a certificate that was made before of the same bytes.
func (p *parser) reuse(digest [sha256.Size]byte) bool {
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

// digest stands for a certificate that was made of two files, the second of which may be
// none. Files of a Source have one Signer each, which does not count.
func (p *parser) digest(first, second string) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat([]byte(first), []byte{0}, p.data[first], []byte{0}, p.data[second]))
}

// inService says whether a certificate came from a file.
func (p *parser) inService(path string) bool {
	return slices.ContainsFunc(p.before.Certificates, func(c Certificate) bool { return c.Origin == path })
}

// aside warns of what cannot be read in a file. It is an error if that takes the place of what was
// in service: then fewer of its name are left. What has no name may have been any. before and now
// are the DER names of what the file had, and has.
func (p *parser) aside(path, what string, before, now [][]byte, aside []pemfile.Aside) error {
	p.m.Warnings = append(p.m.Warnings, asideErrors(path, aside)...)
	if len(aside) == 0 {
		return nil
	}
	for _, name := range before {
		if count(now, name) >= count(before, name) {
			continue
		}
		if i := slices.IndexFunc(aside, func(a pemfile.Aside) bool { return a.Name == nil || bytes.Equal(a.Name, name) }); i >= 0 {
			return fmt.Errorf("%s: %w: one of the %s that are in service would be lost: %w", path, ErrInvalid, what, aside[i].Err)
		}
	}
	return nil
}

func count(names [][]byte, name []byte) (n int) {
	for _, other := range names {
		if bytes.Equal(name, other) {
			n++
		}
	}
	return n
}

func subjects(cas []*x509.Certificate) (names [][]byte) {
	for _, ca := range cas {
		names = append(names, ca.RawSubject)
	}
	return names
}

func listIssuers(lists []*x509.RevocationList) (names [][]byte) {
	for _, list := range lists {
		names = append(names, list.RawIssuer)
	}
	return names
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
