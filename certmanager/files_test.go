package certmanager_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// Files that nobody here has made: the server lets in who is under the root, and nobody else.
func TestFixedFiles(t *testing.T) {
	file := func(name string) string { return filepath.Join("..", "testdata", "certs", name) }
	server := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: file("server.crt"), Key: file("server.key"), ClientCAs: file("root.crt")}})
	client := func(name string) *tls.Config {
		m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: file(name + ".crt"), Key: file(name + ".key"), RootCAs: file("root.crt")}})
		return m.ClientTLS("server.example.test")
	}
	peers := connect(t, server.ServerTLS(), client("client")).ok(t)
	assert.Equal(t, "spiffe://example.test/client", peers.server.PeerCertificates[0].URIs[0].String())
	connect(t, server.ServerTLS(), client("other-client")).refused(t)
}

// A change of the chain alone is a change.
func TestChangeOfAnyByte(t *testing.T) {
	dir := t.TempDir()
	root := tlstest.NewCA(t)
	intermediate := root.Intermediate(t)
	pair := intermediate.Issue(t, tlstest.Leaf{})
	leafOnly := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw})
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: write(t, dir, "a.crt", leafOnly), Key: write(t, dir, "a.key", pair.KeyPEM)}})
	client := root.ClientConfig(t, "localhost")
	connect(t, m.ServerTLS(), client).refused(t)
	write(t, dir, "a.crt", pair.CertPEM)
	eventually(t, "the chain", func() bool { return connect(t, m.ServerTLS(), client).clientErr == nil })
}

func TestBadReloadKeepsTheLastGoodSet(t *testing.T) {
	ca := tlstest.NewCA(t)
	good := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost", "b.test"}})
	set := func(pair *tlstest.Pair) [3][]byte { return [3][]byte{pair.CertPEM, pair.KeyPEM, ca.PEM()} }
	for name, bad := range map[string]struct {
		files [3][]byte // certificate, key, client CAs
		is    error
		says  string
	}{
		"expired":        {set(ca.Issue(t, tlstest.Leaf{}.Expired())), certmanager.ErrExpired, "tls.crt"},
		"not yet valid":  {set(ca.Issue(t, tlstest.Leaf{}.NotYetValid())), certmanager.ErrNotYetValid, "tls.crt"},
		"wrong usage":    {set(ca.Issue(t, tlstest.Leaf{Usage: tlstest.WrongUsage})), certmanager.ErrInvalid, "tls.crt"},
		"another CA":     {set(tlstest.NewCA(t).Issue(t, tlstest.Leaf{})), certmanager.ErrUntrusted, "tls.crt"},
		"a name less":    {set(ca.Issue(t, tlstest.Leaf{})), certmanager.ErrNotCovered, "b.test"},
		"key of another": {[3][]byte{good.CertPEM, ca.Issue(t, tlstest.Leaf{}).KeyPEM, ca.PEM()}, certmanager.ErrMismatch, "tls.crt"},
		"cut off":        {[3][]byte{good.CertPEM[:len(good.CertPEM)-40], good.KeyPEM, ca.PEM()}, certmanager.ErrInvalid, "tls.crt"},
		"empty":          {[3][]byte{nil, good.KeyPEM, ca.PEM()}, certmanager.ErrInvalid, "tls.crt"},
		"no key":         {[3][]byte{good.CertPEM, good.CertPEM, ca.PEM()}, certmanager.ErrInvalid, "tls.key"},
		"empty bundle":   {[3][]byte{good.CertPEM, good.KeyPEM, good.KeyPEM}, certmanager.ErrInvalid, "ca.crt"},
		"broken key": {[3][]byte{good.CertPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}), ca.PEM()},
			certmanager.ErrInvalid, "tls.key"},
		"encrypted": {[3][]byte{good.CertPEM, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}}), ca.PEM()},
			certmanager.ErrEncryptedKey, "tls.key"},
		"encrypted as of old": {[3][]byte{good.CertPEM, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "x"}, Bytes: []byte{1}}), ca.PEM()},
			certmanager.ErrEncryptedKey, "tls.key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put := func(files [3][]byte) {
				write(t, dir, "tls.crt", files[0])
				write(t, dir, "tls.key", files[1])
				write(t, dir, "ca.crt", files[2])
			}
			put(set(good))
			m := newManager(t, certmanager.Options{RequireNames: []string{"LOCALHOST", "b.test"}, Source: certmanager.Files{
				Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), ClientCAs: filepath.Join(dir, "ca.crt"), RootCAs: filepath.Join(dir, "ca.crt"),
			}})
			put(bad.files)
			err := m.Reload(t.Context())
			require.ErrorIs(t, err, bad.is)
			require.ErrorContains(t, err, bad.says)
			client := ca.MutualClientConfig(t, "localhost", tlstest.Leaf{})
			c := connect(t, m.ServerTLS(), client).ok(t)
			assert.True(t, good.Leaf.Equal(c.client.PeerCertificates[0]))
			assert.NotZero(t, m.Status().Rejections)

			next := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost", "b.test"}})
			put(set(next))
			require.NoError(t, m.Reload(t.Context()))
			assert.Equal(t, next.Leaf.SerialNumber, connect(t, m.ServerTLS(), client).ok(t).client.PeerCertificates[0].SerialNumber)
		})
	}
}

// Without anyone's help: a candidate that stays bad is reported once.
func TestBadFileIsReportedOnce(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	var log logBuffer
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}, Logger: log.logger(), PollInterval: 20 * time.Millisecond})
	events := collect(m)
	ca.Issue(t, tlstest.Leaf{}.Expired()).Files(t, dir, "tls")
	eventually(t, "a rejection", func() bool { return len(events(certmanager.Rejected)) > 0 })
	ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	eventually(t, "a good set", func() bool { return len(events(certmanager.Loaded)) > 0 })
	assert.Len(t, events(certmanager.Rejected), 1)
	assert.Equal(t, 1, bytes.Count([]byte(log.String()), []byte("event=rejected")))
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.NewCA(t)
	ca.Issue(t, tlstest.Leaf{Names: []string{"b.test"}}).Files(t, dir, "b")
	a := ca.Issue(t, tlstest.Leaf{Names: []string{"a.test"}})
	write(t, dir, "a.pem", append(append([]byte{}, a.KeyPEM...), a.CertPEM...))
	write(t, dir, "ca.crt", ca.PEM())
	write(t, dir, ".hidden.crt", []byte("not PEM"))
	write(t, dir, "README", []byte("not PEM"))
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Dir: dir}})
	served := func(name string) string {
		config := ca.ClientConfig(t, name)
		config.InsecureSkipVerify = true
		return connect(t, m.ServerTLS(), config).ok(t).client.PeerCertificates[0].DNSNames[0]
	}
	assert.Equal(t, "a.test", served("a.test"))
	assert.Equal(t, "b.test", served("b.test"))
	assert.Equal(t, "a.test", served("c.test"), "the first by name is the default")
	events := collect(m)

	ca.Issue(t, tlstest.Leaf{Names: []string{"c.test", "*.d.test"}}).Files(t, dir, "c")
	eventually(t, "a new pair", func() bool { return served("x.d.test") == "c.test" })
	write(t, dir, "x.crt", ca.Issue(t, tlstest.Leaf{Names: []string{"x.test"}}).CertPEM)
	require.NoError(t, m.Reload(t.Context()))
	eventually(t, "the warning", func() bool { return len(events(certmanager.Warning)) == 1 })
	assert.ErrorContains(t, events(certmanager.Warning)[0].Err, "x.crt")
	require.NoError(t, os.Remove(filepath.Join(dir, "x.crt")))
	require.NoError(t, os.Remove(filepath.Join(dir, "b.crt")))
	eventually(t, "a name less", func() bool { return served("b.test") == "a.test" })
	eventually(t, "the warning", func() bool { return len(events(certmanager.Warning)) == 2 })
	assert.ErrorContains(t, events(certmanager.Warning)[1].Err, "b.test")
}

func TestOlderCertificateIsTakenWithAWarning(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "tls")
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}})
	events := collect(m)
	old := ca.Issue(t, tlstest.Leaf{NotBefore: time.Now().Add(-48 * time.Hour)})
	old.Files(t, dir, "tls")
	require.NoError(t, m.Reload(t.Context()))
	assert.Equal(t, old.Leaf.SerialNumber.String(), serial(t, m, ca))
	eventually(t, "the warning", func() bool { return len(events(certmanager.Warning)) == 1 })
}

func TestKeyFormats(t *testing.T) {
	ca := tlstest.NewCA(t)
	rsaPair, ecPair, edPair := ca.Issue(t, tlstest.Leaf{Key: tlstest.RSA2048}), ca.Issue(t, tlstest.Leaf{}), ca.Issue(t, tlstest.Leaf{Key: tlstest.Ed25519})
	sec1, err := x509.MarshalECPrivateKey(ecPair.Key.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}})
	for name, f := range map[string]struct {
		pair *tlstest.Pair
		key  []byte
	}{
		"PKCS #8 ECDSA":   {ecPair, ecPair.KeyPEM},
		"PKCS #8 RSA":     {rsaPair, rsaPair.KeyPEM},
		"PKCS #8 Ed25519": {edPair, edPair.KeyPEM},
		"PKCS #1":         {rsaPair, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaPair.Key.(*rsa.PrivateKey))})},
		"SEC 1":           {ecPair, append(params, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: write(t, dir, "a.crt", f.pair.CertPEM), Key: write(t, dir, "a.key", f.key)}})
			connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).ok(t)
		})
	}
	t.Run("signer", func(t *testing.T) {
		m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: write(t, t.TempDir(), "a.crt", ecPair.CertPEM), Signer: ecPair.Key}})
		connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).ok(t)
	})
	t.Run("PKCS #12", func(t *testing.T) {
		root := tlstest.NewCA(t)
		between := root.Intermediate(t)
		below := between.Intermediate(t)
		pair := below.Issue(t, tlstest.Leaf{})
		// In no useful order, as such files are.
		data, err := pkcs12.Modern.Encode(pair.Key, pair.Leaf, []*x509.Certificate{between.Certificate(), below.Certificate()}, "geheim")
		require.NoError(t, err)
		dir := t.TempDir()
		files := certmanager.Files{PKCS12: write(t, dir, "a.p12", data), PKCS12Password: write(t, dir, "a.pass", []byte("geheim\n"))}
		m := newManager(t, certmanager.Options{Source: files})
		connect(t, m.ServerTLS(), root.ClientConfig(t, "localhost")).ok(t)
		write(t, dir, "a.pass", []byte("falsch"))
		err = m.Reload(t.Context())
		require.ErrorContains(t, err, "a.p12")
		require.NotContains(t, err.Error(), "falsch")
	})
}

func TestSourcesAreJoined(t *testing.T) {
	dir := t.TempDir()
	ca, clients, more := tlstest.NewCA(t), tlstest.NewCA(t), tlstest.NewCA(t)
	certA, keyA := ca.Issue(t, tlstest.Leaf{Names: []string{"a.test"}}).Files(t, dir, "a")
	certB, keyB := ca.Issue(t, tlstest.Leaf{Names: []string{"b.test"}}).Files(t, dir, "b")
	m := newManager(t, certmanager.Options{Source: certmanager.Sources{
		certmanager.Files{Cert: certA, Key: keyA, ClientCAs: write(t, dir, "ca.crt", clients.PEM()), RootCAs: write(t, dir, "root.crt", ca.PEM())},
		certmanager.Files{Cert: certB, Key: keyB},
		certmanager.Static{ClientCAs: more.Pool()},
	}})
	for _, issuer := range []*tlstest.CA{clients, more} {
		for _, name := range []string{"a.test", "b.test"} {
			config := issuer.MutualClientConfig(t, name, tlstest.Leaf{})
			config.RootCAs = ca.Pool()
			connect(t, m.ServerTLS(), config).ok(t)
		}
	}
	ca.Issue(t, tlstest.Leaf{Names: []string{"b2.test"}}).Files(t, dir, "b")
	eventually(t, "a change of the second source", func() bool {
		cert, err := m.GetCertificateFunc()(&tls.ClientHelloInfo{ServerName: "b2.test"})
		return err == nil && cert.Leaf.DNSNames[0] == "b2.test"
	})
}

// A key that cannot sign is found before it is in service.
func TestSignerThatFails(t *testing.T) {
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{})
	key := &failingSigner{Signer: pair.Key}
	key.fails.Store(true)
	cert := pair.Certificate()
	cert.PrivateKey = key
	_, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{cert}}})
	require.ErrorContains(t, err, "its key does not sign: the HSM is away")
	key.fails.Store(false)
	newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{cert}}})
}

type failingSigner struct {
	crypto.Signer
	fails atomic.Bool
}

func (s *failingSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.fails.Load() {
		return nil, errors.New("the HSM is away")
	}
	return s.Signer.Sign(rand, digest, opts)
}
