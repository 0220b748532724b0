package certmanager

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// parser makes material of the bytes of Files.
type parser struct {
	files Files
	data  map[string][]byte
	known *filesTag // of the previous Material; nil at first
	m     *Material
	tag   *filesTag
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

func (p *parser) put(c Certificate, digest [sha256.Size]byte) error {
	p.m.Certificates = append(p.m.Certificates, c)
	p.tag.certs[digest] = c
	return nil
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

func (p *parser) pair() error {
	if p.files.Cert == "" {
		return nil
	}
	return p.add(p.files.Cert, p.files.Key, p.files.Signer)
}

// add makes a certificate of two files, of one that holds both, or of one and a signer.
func (p *parser) add(certPath, keyPath string, signer crypto.Signer) error {
	digest := p.digest(certPath, keyPath)
	if p.reuse(digest) {
		return nil
	}
	certBlocks, err := decodePEM(p.data[certPath], certPath)
	if err != nil {
		return err
	}
	key := signer
	if key == nil {
		if key, err = p.key(certPath, certBlocks, keyPath); err != nil {
			return err
		}
	}
	return p.put(Certificate{Certificate: tls.Certificate{Certificate: certificateBlocks(certBlocks), PrivateKey: key}, Origin: certPath}, digest)
}

// digest stands for a certificate that was made of two files, the second of which may be
// none. Files of a Source have one Signer each, which does not count.
func (p *parser) digest(first, second string) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat([]byte(first), []byte{0}, p.data[first], []byte{0}, p.data[second]))
}

func (p *parser) key(certPath string, certBlocks []*pem.Block, keyPath string) (crypto.Signer, error) {
	if keyPath == "" {
		return parseKey(certBlocks, certPath)
	}
	blocks, err := decodePEM(p.data[keyPath], keyPath)
	if err != nil {
		return nil, err
	}
	return parseKey(blocks, keyPath)
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
	key, leaf, issuers, err := pkcs12.DecodeChain(p.data[path], strings.TrimSuffix(string(password), "\r"))
	if err != nil {
		return fmt.Errorf("%s: %w: not a PKCS #12 file of this password: %w", path, ErrInvalid, err)
	}
	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	for _, issuer := range inOrder(leaf, issuers) {
		cert.Certificate = append(cert.Certificate, issuer.Raw)
	}
	return p.put(Certificate{Certificate: cert, Origin: path}, digest)
}

// dir adds the pairs of a folder.
func (p *parser) dir(paths []string) error {
	for _, path := range paths {
		ext := filepath.Ext(path)
		if ext == ".key" {
			continue
		}
		keyPath := strings.TrimSuffix(path, ext) + ".key"
		if _, ok := p.data[keyPath]; !ok {
			blocks, err := decodePEM(p.data[path], path)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(blocks, isKeyBlock) && isCABundle(blocks) {
				continue
			}
			keyPath = ""
		}
		if err := p.add(path, keyPath, nil); err != nil {
			return err
		}
	}
	return nil
}

// inOrder returns the issuers of a leaf from the leaf upwards: PKCS #12 has no order.
func inOrder(leaf *x509.Certificate, issuers []*x509.Certificate) []*x509.Certificate {
	var chain []*x509.Certificate
	for last := leaf; len(chain) < len(issuers); {
		i := slices.IndexFunc(issuers, func(c *x509.Certificate) bool {
			return !slices.Contains(chain, c) && bytes.Equal(last.RawIssuer, c.RawSubject)
		})
		if i < 0 {
			break
		}
		last = issuers[i]
		chain = append(chain, last)
	}
	return chain
}

func isCABundle(blocks []*pem.Block) bool {
	ders := certificateBlocks(blocks)
	if len(ders) == 0 {
		return false
	}
	cert, err := x509.ParseCertificate(ders[0])
	return err == nil && cert.IsCA
}

func (p *parser) bundles() (err error) {
	if path := p.files.ClientCAs; path != "" {
		if p.m.ClientCAs, err = parseBundle(p.data[path], path); err != nil {
			return err
		}
	}
	if path := p.files.RootCAs; path != "" {
		if p.m.RootCAs, err = parseBundle(p.data[path], path); err != nil {
			return err
		}
	}
	if path := p.files.CRLs; path != "" {
		if p.m.CRLs, err = parseCRLs(p.data[path], path); err != nil {
			return err
		}
	}
	if path := p.files.CRLIssuers; path != "" {
		if p.m.CRLIssuers, err = parseBundle(p.data[path], path); err != nil {
			return err
		}
	}
	if path := p.files.ECHKeys; path != "" {
		if p.m.ECHKeys, err = parseECH(p.data[path], path); err != nil {
			return err
		}
	}
	return nil
}
