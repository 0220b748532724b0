package certmanager

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// A Source is where certificates and trust come from: [Static], [Files], [ACME], a
// [Func], or several of them as [Sources].
//
// A source does not put anything in service: it says what it has when it is asked, and
// the Manager's keeper asks, when a file changed, at every poll and when the source
// calls Manager.changed. What it gets has to come to rest, is rehearsed and published.
type Source interface {
	// read takes everything that the source has at this moment, without judging it. It
	// is called by any goroutine. An error leaves in service what is there.
	read() (*content, error)

	// paths lists the files and folders whose change is a change of the source.
	paths() []string
}

// A runner is a Source that changes without a file, an ACME client for example.
type runner interface {
	Source

	// run is called once for each Manager, on a goroutine of its own, and ends with ctx.
	// It begins before the first read, which may wait for it; later ones must not. To
	// publish a new set it keeps that where read finds it, with another digest, and
	// calls m.changed, or m.push if it cannot wait for other sources. Until the first set
	// is in service m gives nothing but these two, its options and events.
	run(ctx context.Context, m *Manager)
}

// An opener is a Source that has to know its Manager, or may refuse to be used.
type opener interface {
	// open is called before anything else, with a Manager that has only its options and
	// events yet.
	open(m *Manager) error
}

// content is what a source held at one moment. Its digest changes with any byte. Whatever
// has the digest of what is in service is taken for the same and not parsed.
type content struct {
	digest [sha256.Size]byte
	// parse makes material of it. A certificate whose bytes are known is not made anew.
	parse func(known map[[sha256.Size]byte]*certificate) (*material, error)
	parts []*content // of Sources, one for each
}

// material is the parsed content of a source. It is immutable.
type material struct {
	certificates []*certificate // the first is the default
	byDigest     map[[sha256.Size]byte]*certificate
	clientCAs    bundle
	rootCAs      bundle
	crls         []*x509.RevocationList
	crlIssuers   []*x509.Certificate
	echKeys      []tls.EncryptedClientHelloKey
	funcs        []Func
	late         bool // that there is no certificate yet is no mistake
}

func newMaterial() *material {
	return &material{byDigest: make(map[[sha256.Size]byte]*certificate)}
}

// reuse adds a certificate that was made before of the same bytes: it is not rehearsed
// again.
func (m *material) reuse(known map[[sha256.Size]byte]*certificate, digest [sha256.Size]byte) bool {
	c := known[digest]
	if c == nil {
		return false
	}
	m.certificates = append(m.certificates, c)
	m.byDigest[digest] = c
	return true
}

// add makes a certificate and adds it.
func (m *material) add(cert tls.Certificate, origin string, digest [sha256.Size]byte) error {
	c, err := newCertificate(cert, origin)
	if err != nil {
		return err
	}
	m.certificates = append(m.certificates, c)
	m.byDigest[digest] = c
	return nil
}

// bundle is a set of CAs. A pool from a program cannot be taken apart, so that both
// forms are carried on to where the effective pool is made.
type bundle struct {
	base  *x509.CertPool
	certs []*x509.Certificate
}

func (b bundle) given() bool { return b.base != nil || len(b.certs) > 0 }

// pool returns nil if no CA was given, which crypto/tls takes for the system's roots.
func (b bundle) pool() *x509.CertPool {
	if !b.given() {
		return nil
	}
	pool := x509.NewCertPool()
	if b.base != nil {
		pool = b.base.Clone()
	}
	for _, cert := range b.certs {
		pool.AddCert(cert)
	}
	return pool
}

func (b bundle) join(other bundle) (bundle, error) {
	if b.base != nil && other.base != nil {
		return b, fmt.Errorf("%w: two sources give a *x509.CertPool for the same bundle; pools cannot be merged, make one of them", ErrInvalid)
	}
	if b.base == nil {
		b.base = other.base
	}
	b.certs = append(b.certs[:len(b.certs):len(b.certs)], other.certs...)
	return b, nil
}

// Static is a Source of values that the program has already. They must not be
// modified afterwards; [Manager.Update] and the setters replace them.
type Static struct {
	// Certificates are the chains with their keys. A key may be any [crypto.Signer], for
	// example one in an HSM. The first is the default, for clients that name nothing.
	Certificates []tls.Certificate

	// ClientCAs verify clients, RootCAs servers. Nil RootCAs are the system's roots.
	ClientCAs, RootCAs *x509.CertPool

	// CRLs are revocation lists. CRLIssuers are the certificates of those who signed
	// them, since the pools above cannot be searched.
	CRLs       []*x509.RevocationList
	CRLIssuers []*x509.Certificate

	// ECHKeys are the server's Encrypted Client Hello keys.
	ECHKeys []tls.EncryptedClientHelloKey
}

func (s Static) paths() []string { return nil }

func (s Static) read() (*content, error) {
	return &content{parse: func(known map[[sha256.Size]byte]*certificate) (*material, error) {
		m := newMaterial()
		m.clientCAs.base, m.rootCAs.base = s.ClientCAs, s.RootCAs
		m.crls, m.crlIssuers, m.echKeys = s.CRLs, s.CRLIssuers, s.ECHKeys
		for i, cert := range s.Certificates {
			origin := fmt.Sprintf("Static.Certificates[%d]", i)
			digest := sha256.Sum256(append([]byte(origin), slices.Concat(cert.Certificate...)...))
			if m.reuse(known, digest) {
				continue
			}
			if err := m.add(cert, origin, digest); err != nil {
				return nil, err
			}
		}
		return m, nil
	}}, nil
}

// Sources is several sources in one. The first certificate of the first source that
// has one is the default; bundles and revocation lists are joined.
type Sources []Source

func (ss Sources) paths() []string {
	var all []string
	for _, s := range ss {
		if s != nil { // read says so
			all = append(all, s.paths()...)
		}
	}
	return all
}

// flat takes Sources inside of Sources apart.
func (ss Sources) flat() Sources {
	var all Sources
	for _, s := range ss {
		if inner, ok := s.(Sources); ok {
			all = append(all, inner.flat()...)
		} else {
			all = append(all, s)
		}
	}
	return all
}

func (ss Sources) open(m *Manager) error {
	for _, s := range ss {
		if o, ok := s.(opener); ok {
			if err := o.open(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// run runs those of the sources that are runners.
func (ss Sources) run(ctx context.Context, m *Manager) {
	var all sync.WaitGroup
	for _, s := range ss {
		if r, ok := s.(runner); ok {
			all.Go(func() { r.run(ctx, m) })
		}
	}
	all.Wait()
}

func (ss Sources) read() (*content, error) {
	var parts []*content
	var errs []error
	for i, s := range ss {
		if s == nil {
			return nil, fmt.Errorf("%w: Sources[%d] is nil", ErrInvalid, i)
		}
		part, err := s.read()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		parts = append(parts, part)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return joinContents(parts), nil
}

func joinContents(parts []*content) *content {
	sum := sha256.New()
	for _, part := range parts {
		sum.Write(part.digest[:])
	}
	return &content{
		digest: [sha256.Size]byte(sum.Sum(nil)),
		parts:  parts,
		parse: func(known map[[sha256.Size]byte]*certificate) (*material, error) {
			return joinParts(parts, known)
		},
	}
}

func joinParts(parts []*content, known map[[sha256.Size]byte]*certificate) (*material, error) {
	all := newMaterial()
	for _, part := range parts {
		m, err := part.parse(known)
		if err != nil {
			return nil, err
		}
		if all.clientCAs, err = all.clientCAs.join(m.clientCAs); err != nil {
			return nil, fmt.Errorf("ClientCAs: %w", err)
		}
		if all.rootCAs, err = all.rootCAs.join(m.rootCAs); err != nil {
			return nil, fmt.Errorf("RootCAs: %w", err)
		}
		all.certificates = append(all.certificates, m.certificates...)
		all.crls = append(all.crls, m.crls...)
		all.crlIssuers = append(all.crlIssuers, m.crlIssuers...)
		all.echKeys = append(all.echKeys, m.echKeys...)
		all.funcs = append(all.funcs, m.funcs...)
		all.late = all.late || m.late
		for digest, c := range m.byDigest {
			all.byDigest[digest] = c
		}
	}
	return all, nil
}
