package tlstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Usage is what a leaf may be used for (RFC 5280 section 4.2.1.12).
type Usage int

// What a leaf may be used for; the zero value serves both.
const (
	ServerAndClient Usage = iota
	ServerOnly
	ClientOnly
	WrongUsage // code signing, which no TLS peer accepts
)

// KeyType is the algorithm of a leaf's key.
type KeyType int

// The algorithms of keys; the zero value is the fastest.
const (
	ECDSAP256 KeyType = iota
	// RSA2048 keys are slow to make: a process makes four and uses them in turn, so every fifth
	// leaf has the key of the first.
	RSA2048
	Ed25519
)

// Leaf describes a certificate that is not a CA's. The zero value is one for
// this machine that serves as server and as client.
type Leaf struct {
	// CommonName defaults to the first of Names and URIs that fits (64 bytes).
	CommonName string

	// Names are DNS names and IP addresses. None means localhost, 127.0.0.1
	// and ::1, with ClientOnly no name at all.
	Names []string

	// URIs are further names, such as SPIFFE IDs. None is the default.
	URIs []string

	// Usage defaults to server and client.
	Usage Usage

	// Key defaults to a new ECDSA P-256 key.
	Key KeyType

	// PublicKey is that of a private key which is elsewhere, in an HSM for example. The Pair has no
	// key then. Nil is a new key.
	PublicKey crypto.PublicKey

	// NotBefore and NotAfter default to an hour ago and a day ahead.
	NotBefore, NotAfter time.Time
}

// Expired returns the leaf with a validity that ended an hour ago.
func (l Leaf) Expired() Leaf {
	l.NotBefore, l.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	return l
}

// NotYetValid returns the leaf with a validity that begins in an hour.
func (l Leaf) NotYetValid() Leaf {
	l.NotBefore, l.NotAfter = time.Now().Add(time.Hour), time.Now().Add(24*time.Hour)
	return l
}

// Issue makes a key and a certificate for it.
func (ca *CA) Issue(t TB, l Leaf) *Pair {
	t.Helper()
	pair, err := ca.Generate(l)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return pair
}

// Generate is [CA.Issue] without a test.
func (ca *CA) Generate(l Leaf) (*Pair, error) {
	template, err := l.template()
	if err != nil {
		return nil, err
	}
	if l.PublicKey != nil {
		leaf, err := ca.sign(template, l.PublicKey)
		if err != nil {
			return nil, err
		}
		chain := slices.Concat([][]byte{leaf.Raw}, ca.chain)
		return &Pair{CertPEM: certPEM(chain...), Leaf: leaf, chain: chain}, nil
	}
	key, err := newKey(l.Key)
	if err != nil {
		return nil, fmt.Errorf("tlstest: leaf %q: %w", template.Subject.CommonName, err)
	}
	leaf, err := ca.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("tlstest: leaf %q: %w", template.Subject.CommonName, err)
	}
	chain := slices.Concat([][]byte{leaf.Raw}, ca.chain)
	return &Pair{
		CertPEM: certPEM(chain...),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		Leaf:    leaf,
		Key:     key,
		chain:   chain,
	}, nil
}

func (l Leaf) template() (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		NotBefore:             l.NotBefore,
		NotAfter:              l.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}

	names := l.Names
	if len(names) == 0 && l.Usage != ClientOnly {
		names = []string{"localhost", "127.0.0.1", "::1"}
	}
	template.Subject = pkix.Name{CommonName: l.CommonName}
	for _, name := range slices.Concat(names, l.URIs) {
		if name == "" {
			return nil, errors.New("tlstest: Leaf.Names or Leaf.URIs holds an empty text")
		}
		// RFC 5280, appendix A: ub-common-name is 64.
		if template.Subject.CommonName == "" && len(name) <= 64 {
			template.Subject.CommonName = name
		}
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	for _, text := range l.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("tlstest: Leaf.URIs: %w", err)
		}
		template.URIs = append(template.URIs, uri)
	}

	var err error
	template.ExtKeyUsage, err = l.Usage.extended()
	return template, err
}

func (u Usage) extended() ([]x509.ExtKeyUsage, error) {
	switch u {
	case ServerAndClient:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, nil
	case ServerOnly:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil
	case ClientOnly:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, nil
	case WrongUsage:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, nil
	default:
		return nil, fmt.Errorf("tlstest: Leaf.Usage %d is unknown", u)
	}
}

// Pair is a leaf with its key.
type Pair struct {
	CertPEM []byte            // the leaf, then the intermediates
	KeyPEM  []byte            // PKCS#8
	Leaf    *x509.Certificate // the first of CertPEM, parsed
	Key     crypto.Signer     // that of KeyPEM

	chain [][]byte
}

// Certificate returns the pair for crypto/tls, with its Leaf set.
func (p *Pair) Certificate() tls.Certificate {
	return tls.Certificate{Certificate: p.chain, PrivateKey: p.Key, Leaf: p.Leaf}
}

// Files writes dir/name.crt (mode 0644) and dir/name.key (0600), each replaced
// atomically, the key first. [Replacements] has the other ways.
func (p *Pair) Files(t TB, dir, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile, err := p.WriteFiles(dir, name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return certFile, keyFile
}

// WriteFiles is [Pair.Files] without a test.
func (p *Pair) WriteFiles(dir, name string) (certFile, keyFile string, err error) {
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	if err := WriteFile(keyFile, p.KeyPEM, 0o600); err != nil {
		return "", "", err
	}
	if err := WriteFile(certFile, p.CertPEM, 0o644); err != nil {
		return "", "", err
	}
	return certFile, keyFile, nil
}

var rsaKeys struct {
	sync.Mutex
	made [4]*rsa.PrivateKey
	next int
}

func newKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case RSA2048:
		rsaKeys.Lock()
		defer rsaKeys.Unlock()
		slot := &rsaKeys.made[rsaKeys.next%len(rsaKeys.made)]
		if *slot == nil {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				return nil, err
			}
			*slot = key
		}
		rsaKeys.next++
		return *slot, nil
	default:
		return nil, fmt.Errorf("Leaf.Key %d is unknown", kind)
	}
}
