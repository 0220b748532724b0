package certmanager_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

// loggedManager is a manager with what it wrote to its log.
type loggedManager struct {
	*certmanager.Manager
	log logBuffer
}

// warnings returns the warnings so far.
func (l *loggedManager) warnings() []string {
	var all []string
	for line := range strings.Lines(l.log.String()) {
		if strings.Contains(line, "level=WARN") {
			all = append(all, line)
		}
	}
	return all
}

func newLogged(t *testing.T, source certmanager.Source) *loggedManager {
	t.Helper()
	l := new(loggedManager)
	m, err := certmanager.New(certmanager.Options{Source: source, PollInterval: time.Hour, Logger: l.log.logger()})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	l.Manager = m
	return l
}

// served returns the chain that a client gets for a name, and whether it verifies it.
func served(t *testing.T, m *certmanager.Manager, name string, roots *x509.CertPool) (chain []*x509.Certificate, verified error) {
	t.Helper()
	cert, err := m.GetCertificateFunc()(&tls.ClientHelloInfo{
		ServerName: name, SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256},
	})
	require.NoError(t, err)
	intermediates := x509.NewCertPool()
	for i, der := range cert.Certificate {
		parsed, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		chain = append(chain, parsed)
		if i > 0 {
			intermediates.AddCert(parsed)
		}
	}
	_, verified = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: name})
	return chain, verified
}

func put(t *testing.T, dir, name string, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, bytes.Join(parts, nil), 0o600))
	return path
}

// A folder loads what can be used of it, at the start and later, and names the rest. What was in
// service stays there when its file becomes unusable.
func TestFolderWithOneWrongEntry(t *testing.T) {
	ca := tlstest.NewCA(t)
	roots := ca.Pool()
	pair := func(l tlstest.Leaf) *tlstest.Pair { return ca.Issue(t, l) }
	good := pair(tlstest.Leaf{Names: []string{"good.test"}})
	server := pair(tlstest.Leaf{Names: []string{"x.test"}})
	for name, spoil := range map[string]func(dir string){
		"dangling link":  func(dir string) { require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "x.pem"))) },
		"folder":         func(dir string) { require.NoError(t, os.Mkdir(filepath.Join(dir, "x.pem"), 0o700)) },
		"key only":       func(dir string) { put(t, dir, "x.pem", server.KeyPEM) },
		"text":           func(dir string) { put(t, dir, "x.crt", []byte("hello")) },
		"empty":          func(dir string) { put(t, dir, "x.crt") },
		"no key":         func(dir string) { put(t, dir, "x.crt", server.CertPEM) },
		"key of another": func(dir string) { put(t, dir, "x.crt", server.CertPEM); put(t, dir, "x.key", good.KeyPEM) },
		"swapped":        func(dir string) { put(t, dir, "x.crt", server.KeyPEM); put(t, dir, "x.key", server.CertPEM) },
		"broken key":     func(dir string) { put(t, dir, "x.crt", server.CertPEM); put(t, dir, "x.key", []byte("hello")) },
		"key is a folder": func(dir string) {
			put(t, dir, "x.crt", server.CertPEM)
			require.NoError(t, os.Mkdir(filepath.Join(dir, "x.key"), 0o700))
		},
		"expired":       func(dir string) { pair(tlstest.Leaf{Names: []string{"x.test"}}.Expired()).Files(t, dir, "x") },
		"not yet valid": func(dir string) { pair(tlstest.Leaf{Names: []string{"x.test"}}.NotYetValid()).Files(t, dir, "x") },
		"for code signing": func(dir string) {
			pair(tlstest.Leaf{Names: []string{"x.test"}, Usage: tlstest.WrongUsage}).Files(t, dir, "x")
		},
		"huge": func(dir string) { require.NoError(t, os.Truncate(put(t, dir, "x.pem"), 1<<30)) },
		"CA is expired": func(dir string) {
			ended := ca.Intermediate(t, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			})
			ended.Issue(t, tlstest.Leaf{Names: []string{"x.test"}}).Files(t, dir, "x")
		},
		"its key has another name": func(dir string) { put(t, dir, "x.pem", server.CertPEM); put(t, dir, "other.key", server.KeyPEM) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			good.Files(t, dir, "good")
			spoil(dir)
			source := certmanager.Sources{certmanager.Files{Dir: dir}, certmanager.Static{RootCAs: roots}}
			m := newLogged(t, source)
			_, err := served(t, m.Manager, "good.test", roots)
			require.NoError(t, err)
			require.Len(t, m.warnings(), 1)
			assert.Contains(t, m.warnings()[0], filepath.Join(dir, "x."))

			require.NoError(t, m.Reload(t.Context()), "nothing changed")
			pair(tlstest.Leaf{Names: []string{"good.test", "more.test"}}).Files(t, dir, "good")
			require.NoError(t, m.Reload(t.Context()))
			_, err = served(t, m.Manager, "more.test", roots)
			require.NoError(t, err)
			require.Len(t, m.warnings(), 1, "it was told of")

			if name == "expired" || name == "not yet valid" {
				return // it is served, for want of a better one for its name
			}
			require.NoError(t, os.Remove(filepath.Join(dir, "good.crt")))
			require.NoError(t, os.Remove(filepath.Join(dir, "good.key")))
			require.Error(t, m.Reload(t.Context()), "nothing would be left")
		})
	}
}

// It is an error where it takes away what is in service, and the old one stays.
func TestFolderKeepsWhatIsInService(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	ca.Issue(t, tlstest.Leaf{Names: []string{"a.test"}}).Files(t, dir, "a")
	ca.Issue(t, tlstest.Leaf{Names: []string{"b.test"}}).Files(t, dir, "b")
	m := newLogged(t, certmanager.Files{Dir: dir})
	ca.Issue(t, tlstest.Leaf{Names: []string{"b.test"}}.Expired()).Files(t, dir, "b")
	err := m.Reload(t.Context())
	require.ErrorIs(t, err, certmanager.ErrExpired)
	require.ErrorContains(t, err, "the clock here says 20")
	put(t, dir, "b.key", []byte("hello"))
	require.ErrorContains(t, m.Reload(t.Context()), filepath.Join(dir, "b.key"))
	_, err = served(t, m.Manager, "b.test", ca.Pool())
	require.NoError(t, err)
}

// Ten thousand bad files are a few lines.
func TestWarningsAreBounded(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	ca.Issue(t, tlstest.Leaf{Names: []string{"good.test"}}).Files(t, dir, "good")
	for i := range 10_000 {
		put(t, dir, fmt.Sprintf("x%d.pem", i), []byte("hello"))
	}
	m := newLogged(t, certmanager.Files{Dir: dir})
	assert.Less(t, len(m.warnings()), 15)
	assert.Contains(t, strings.Join(m.warnings(), ""), "9990 more")
}

// Nor does it take long to say why they are bad: the keys of a folder that are named otherwise than
// their certificates, the unreadable entries of a bundle.
func TestManyBadEntries(t *testing.T) {
	ca, dir := tlstest.NewCA(t), t.TempDir()
	good := ca.Issue(t, tlstest.Leaf{Names: []string{"good.test"}})
	good.Files(t, dir, "good")
	for i := range 1500 {
		pair := ca.Issue(t, tlstest.Leaf{})
		put(t, dir, fmt.Sprintf("%d.crt", i), pair.CertPEM)
		put(t, dir, fmt.Sprintf("%d-key.key", i), pair.KeyPEM)
	}
	began := time.Now()
	m := newLogged(t, certmanager.Files{Dir: dir})
	assert.Contains(t, strings.Join(m.warnings(), ""), "0.crt: invalid certificate material: its private key is in "+dir+"/0-key.key")
	assert.Less(t, time.Since(began), 15*time.Second)

	cas := make([][]byte, 1000)
	for i := range cas {
		cas[i] = tlstest.NewCA(t).PEM()
	}
	files := certmanager.Files{ClientCAs: put(t, dir, "cas", cas...)}
	before, err := files.Load(t.Context(), nil)
	require.NoError(t, err)
	put(t, dir, "cas", bytes.Join(cas, nil), bytes.Repeat(unreadable(t, ca.PEM(), "number"), 20_000))
	began = time.Now()
	after, err := files.Load(t.Context(), before)
	require.NoError(t, err)
	assert.Len(t, after.ClientCAs, len(cas))
	assert.Less(t, time.Since(began), 15*time.Second)
}

// Chains as they stand in files: in any order, with several ways up, with what is not needed.
func TestChainsOfFiles(t *testing.T) {
	root, second, old := newAuthority(t, "root"), newAuthority(t, "second"), newAuthority(t, "old")
	between, below, end := newAuthority(t, "between"), newAuthority(t, "below"), newAuthority(t, "a.test")
	ended := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	leaf, low, high := end.by(below, nil), below.by(between, nil), between.by(root, nil)
	key, err := x509.MarshalPKCS8PrivateKey(end.key)
	require.NoError(t, err)
	highBySecond, rootByOld, highByOldEnded := between.by(second, nil), root.by(old, ended), between.by(old, ended)
	for name, c := range map[string]struct {
		file  [][]byte
		roots []*authority // that clients have, one of them each
		chain int
		warns string
	}{
		"as it should be":                       {[][]byte{leaf, low, high}, []*authority{root}, 3, ""},
		"with the root":                         {[][]byte{leaf, low, high, root.by(root, nil)}, []*authority{root}, 4, ""},
		"root first":                            {[][]byte{root.by(root, nil), high, low, leaf}, []*authority{root}, 4, ""},
		"issuers reversed":                      {[][]byte{leaf, high, low}, []*authority{root}, 3, ""},
		"twice":                                 {[][]byte{leaf, low, high, leaf, low, high}, []*authority{root}, 3, ""},
		"signed by two roots":                   {[][]byte{leaf, low, high, highBySecond}, []*authority{root, second}, 4, ""},
		"signed by two roots, with these":       {[][]byte{leaf, low, high, highBySecond, root.by(root, nil), second.by(second, nil)}, []*authority{root, second}, 6, ""},
		"an expired cross-sign at its end":      {[][]byte{leaf, low, high, rootByOld}, []*authority{root}, 3, "expired"},
		"an expired root at its end":            {[][]byte{leaf, low, high, rootByOld, old.by(old, ended)}, []*authority{root}, 3, "expired"},
		"an expired cross-sign before the good": {[][]byte{leaf, low, highByOldEnded, high}, []*authority{root}, 3, "expired"},
		"an unrelated CA at its end":            {[][]byte{leaf, low, high, second.by(second, nil)}, []*authority{root}, 3, "issued none"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := newLogged(t, certmanager.Files{Cert: put(t, dir, "tls.crt", c.file...), Key: put(t, dir, "tls.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))})
			for _, ca := range c.roots {
				roots := x509.NewCertPool()
				require.True(t, roots.AppendCertsFromPEM(ca.by(ca, nil)))
				chain, err := served(t, m.Manager, "a.test", roots)
				require.NoError(t, err)
				assert.Len(t, chain, c.chain)
				assert.Equal(t, "CN=a.test", chain[0].Subject.String())
			}
			if c.warns == "" {
				assert.Empty(t, m.warnings())
				return
			}
			require.Len(t, m.warnings(), 1)
			assert.Contains(t, m.warnings()[0], c.warns)
			assert.Contains(t, m.warnings()[0], filepath.Join(dir, "tls.crt"))
		})
	}
}

// authority is a key with a name, which other authorities sign.
type authority struct {
	t    *testing.T
	name string
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &authority{t, name, key}
}

// by returns a certificate of the authority that another one signed, or itself. It is a CA's unless
// its name is a host's.
func (a *authority) by(signer *authority, edit func(*x509.Certificate)) []byte {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: a.name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: !strings.Contains(a.name, "."),
	}
	if !template.IsCA {
		template.DNSNames = []string{a.name}
	}
	if edit != nil {
		edit(template)
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: signer.name}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, a.key.Public(), signer.key)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// What tells of a mistake tells which, in which files.
func TestMistakesAreNamed(t *testing.T) {
	ca := tlstest.NewCA(t)
	a, b := ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{})
	dir := t.TempDir()
	crt, key := put(t, dir, "a.crt", a.CertPEM), put(t, dir, "a.key", a.KeyPEM)
	locked, err := pkcs12.Modern.Encode(a.Certificate().PrivateKey, a.Leaf, nil, "geheim")
	require.NoError(t, err)
	for _, c := range []struct {
		files certmanager.Files
		is    error
		says  []string
	}{
		{certmanager.Files{Cert: crt, Key: put(t, dir, "b.key", b.KeyPEM)}, certmanager.ErrMismatch, []string{"a.crt", "b.key"}},
		{certmanager.Files{Cert: key, Key: crt}, certmanager.ErrInvalid, []string{"a.crt", "a.key", "swapped"}},
		{certmanager.Files{Cert: crt, Key: crt}, certmanager.ErrInvalid, []string{"a.crt", "no private key, but a certificate"}},
		{certmanager.Files{Cert: crt}, certmanager.ErrInvalid, []string{"a.crt", "no private key, but a certificate"}},
		{certmanager.Files{Cert: dir}, certmanager.ErrInvalid, []string{"folder"}},
		{certmanager.Files{ClientCAs: key}, certmanager.ErrInvalid, []string{"a.key", "no certificate, but a private key"}},
		{certmanager.Files{PKCS12: crt}, certmanager.ErrInvalid, []string{"a.crt", "not a PKCS #12 file"}},
		{certmanager.Files{PKCS12: put(t, dir, "locked.p12", locked)}, certmanager.ErrInvalid, []string{"locked.p12", "has a password", "Files.PKCS12Password"}},
		{certmanager.Files{Dir: t.TempDir()}, certmanager.ErrNoCertificate, []string{"no pair", "*.key of the same name"}},
		{certmanager.Files{Dir: crt}, syscall.ENOTDIR, []string{"a.crt", "Files.Dir"}},
		{certmanager.Files{Cert: crt, Key: string(a.KeyPEM)}, certmanager.ErrInvalid, []string{"the contents of a file instead of its name"}},
		{certmanager.Files{Cert: string(a.CertPEM), Key: key}, certmanager.ErrInvalid, []string{"the contents of a file instead of its name"}},
	} {
		_, err := certmanager.New(certmanager.Options{Source: c.files})
		require.ErrorIs(t, err, c.is)
		assert.NotContains(t, err.Error(), "PRIVATE KEY")
		for _, says := range c.says {
			assert.ErrorContains(t, err, says)
		}
	}
	for name, says := range map[string]string{
		"www.example.com":   "www.example.com; the certificates for servers have localhost, 127.0.0.1, ::1",
		"https://localhost": "is not a DNS name or IP address", "localhost:4433": "is not a DNS name or IP address", "": "is not a DNS name or IP address",
	} {
		_, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: crt, Key: key}, RequireNames: []string{name}})
		assert.ErrorContains(t, err, says)
	}
	newLogged(t, certmanager.Files{Cert: crt, Key: key}) // it is fine otherwise
	// Several keys in one file: the one of the certificate is taken.
	newLogged(t, certmanager.Files{Cert: put(t, dir, "both.pem", b.KeyPEM, a.KeyPEM, a.CertPEM)})
}

// What some peers refuse is served with a warning.
func TestCertificatesWithAWarning(t *testing.T) {
	openssl := needs.Program(t, "openssl")
	for name, c := range map[string]struct{ args, warns string }{
		"must-staple": {"-addext subjectAltName=DNS:a.test -addext tlsfeature=status_request", "must-staple"},
		"no names":    {"-addext basicConstraints=CA:FALSE", "has no names"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			args := strings.Fields("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -subj /CN=a.test " + c.args)
			cmd := exec.Command(openssl, args...)
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			m := newLogged(t, certmanager.Files{Cert: filepath.Join(dir, "c"), Key: filepath.Join(dir, "k")})
			require.Len(t, m.warnings(), 1)
			assert.Contains(t, m.warnings()[0], c.warns)
		})
	}
}
