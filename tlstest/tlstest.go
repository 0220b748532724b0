// Package tlstest makes certificates, files and peers for tests of TLS programs. It needs no
// network and no other program.
//
// Start with [NewCA] and [CA.Issue]: a certificate authority in one line, a
// leaf in the next.
//
//	ca := tlstest.NewCA(t)
//	server := ca.Issue(t, tlstest.Leaf{Names: []string{"example.test"}})
//
// Functions that take a TB end the test if they fail. Functions named Generate and Write return the
// error instead, for programs and for other goroutines of a test.
//
// [Replacements] replace files on disk in the ways that operators and their tools do.
// [HostileClients] connect to a server and misbehave. [Replay] presents a TLS session again and
// again.
//
// The keys are unprotected: do not use the certificates in production.
package tlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"
)

// TB is the part of [testing.TB] that this package needs: Helper and Fatalf. Programs that use the
// package do not link package testing.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// CA is a certificate authority, either a root or an intermediate, with an
// ECDSA P-256 key. Its methods may be called from any goroutine, those that
// take a [TB] from the test's own.
type CA struct {
	cert  *x509.Certificate
	key   crypto.Signer
	root  *x509.Certificate
	chain [][]byte // follows a leaf: this CA up to the root, without the root

	mu      sync.Mutex // guards lastCRL
	lastCRL int64
}

// NewCA makes a root. Its name is unique and it is valid from a year ago for
// ten years, unless an edit of the template says otherwise:
//
//	tlstest.NewCA(t, func(c *x509.Certificate) { c.Subject.CommonName = "old root" })
func NewCA(t TB, edits ...func(template *x509.Certificate)) *CA {
	t.Helper()
	ca, err := GenerateCA(edits...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return ca
}

// GenerateCA is [NewCA] without a test.
func GenerateCA(edits ...func(template *x509.Certificate)) (*CA, error) {
	return generateCA(nil, edits)
}

// Intermediate makes a CA below this one. The certificates that it issues have the chain up to the
// root, without the root. The edits are those of [NewCA].
func (ca *CA) Intermediate(t TB, edits ...func(template *x509.Certificate)) *CA {
	t.Helper()
	sub, err := ca.GenerateIntermediate(edits...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return sub
}

// GenerateIntermediate is [CA.Intermediate] without a test.
func (ca *CA) GenerateIntermediate(edits ...func(template *x509.Certificate)) (*CA, error) {
	return generateCA(ca, edits)
}

func generateCA(parent *CA, edits []func(*x509.Certificate)) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("tlstest: CA key: %w", err)
	}
	serial := newSerial()
	role := "root"
	if parent != nil {
		role = "intermediate"
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		// CAs with one name between them confuse both readers and chain building.
		Subject:               pkix.Name{CommonName: "tlstest " + role + " " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             time.Now().AddDate(-1, 0, 0),
		NotAfter:              time.Now().AddDate(9, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true, // CreateCertificate adds the SubjectKeyId
	}
	for _, edit := range edits {
		edit(template)
	}

	ca := &CA{key: key}
	issuer := &CA{cert: template, key: key}
	if parent != nil {
		issuer = parent
	}
	if ca.cert, err = issuer.sign(template, key.Public()); err != nil {
		return nil, err
	}
	if parent == nil {
		ca.root = ca.cert
	} else {
		ca.root = parent.root
		ca.chain = slices.Concat([][]byte{ca.cert.Raw}, parent.chain)
	}
	return ca, nil
}

// Certificate returns the CA's own certificate, which must not be modified.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// PEM returns the CA's own certificate as PEM, ready for a CA bundle.
func (ca *CA) PEM() []byte { return certPEM(ca.cert.Raw) }

// Pool returns a new pool with the root above this CA, or the CA itself if it is a root.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root)
	return pool
}

func (ca *CA) sign(template *x509.Certificate, pub crypto.PublicKey) (*x509.Certificate, error) {
	if !template.NotAfter.After(template.NotBefore) {
		return nil, fmt.Errorf("tlstest: certificate %q: NotAfter %s is not after NotBefore %s",
			template.Subject.CommonName, template.NotAfter, template.NotBefore)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("tlstest: certificate %q: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("tlstest: certificate %q: %w", template.Subject.CommonName, err)
	}
	return cert, nil
}

// newSerial returns a positive random number of 128 bits (RFC 5280 section 4.1.2.2).
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] |= 0x80
	return new(big.Int).SetBytes(b[:])
}

func certPEM(chain ...[]byte) []byte {
	var out []byte
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
