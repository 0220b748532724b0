package certmanager_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

// newECH makes an Encrypted Client Hello key: the file of the server and the config
// list of the client.
func newECH(t *testing.T, id byte, publicName string) (file, list []byte) {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	public := key.PublicKey().Bytes()
	contents := []byte{id, 0, 0x20} // config id; DHKEM(X25519, HKDF-SHA256)
	contents = append(binary.BigEndian.AppendUint16(contents, uint16(len(public))), public...)
	contents = append(contents, 0, 4, 0, 1, 0, 1, 0) // HKDF-SHA256 with AES-128-GCM; no name length
	contents = append(append(contents, byte(len(publicName))), publicName...)
	contents = append(contents, 0, 0) // no extensions
	config := append(binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(contents))), contents...)
	list = append(binary.BigEndian.AppendUint16(nil, uint16(len(config))), config...)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	file = append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "ECHCONFIG", Bytes: list})...)
	return file, list
}

// A key that crypto/tls cannot use is refused, also where certificates come later or from a
// function.
func TestUnusableECHKey(t *testing.T) {
	pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{})
	cert := pair.Certificate()
	_, list := newECH(t, 1, "public.test")
	keys := certmanager.Static{ECHKeys: []tls.EncryptedClientHelloKey{{Config: list[2:], PrivateKey: []byte{1}}}}
	for name, source := range map[string]certmanager.Source{
		"a certificate": leaf(pair),
		"a function":    certmanager.Func(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }),
		"later":         &pushed{material: &certmanager.Material{Orders: func() []certmanager.OrderStatus { return nil }}},
	} {
		_, err := tryNew(certmanager.Options{Source: certmanager.Sources{source, keys}})
		require.ErrorIs(t, err, certmanager.ErrInvalid, name)
		assert.ErrorContains(t, err, "Encrypted Client Hello key", name)
	}
}

func TestEncryptedClientHello(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{Names: []string{"secret.test", "public.test"}}).Files(t, dir, "tls")
	first, firstList := newECH(t, 1, "public.test")
	second, secondList := newECH(t, 2, "public.test")
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key, ECHKeys: write(t, dir, "ech.pem", first), RootCAs: write(t, dir, "root", ca.PEM())}})
	server := m.ServerTLS()
	client := func(list []byte) *tls.Config {
		config := m.ClientTLS("secret.test")
		config.EncryptedClientHelloConfigList, config.MinVersion = list, tls.VersionTLS13
		return config
	}
	c := connect(t, server, client(firstList)).ok(t)
	assert.True(t, c.client.ECHAccepted)
	assert.Equal(t, "secret.test", c.server.ServerName)
	unnamed := client(firstList)
	unnamed.VerifyConnection = m.ClientTLS("").VerifyConnection
	assert.Equal(t, "secret.test", connect(t, server, unnamed).ok(t).client.ServerName)
	connect(t, server, m.ClientTLS("secret.test")).ok(t)

	write(t, dir, "ech.pem", append(second, first...))
	require.NoError(t, m.Reload(t.Context()))
	assert.Equal(t, 2, m.Status().ECHKeys)
	connect(t, server, client(firstList)).ok(t)
	connect(t, server, client(secondList)).ok(t)
	write(t, dir, "ech.pem", second)
	require.NoError(t, m.Reload(t.Context()))

	// Who comes with the old key is told the new one, and by a proven server only.
	m.SetServerName("secret.test")
	c = connect(t, server, client(firstList)).refused(t)
	var rejection *tls.ECHRejectionError
	require.ErrorAs(t, c.clientErr, &rejection)
	assert.Equal(t, secondList, rejection.RetryConfigList)
	connect(t, server, client(rejection.RetryConfigList)).ok(t)
	m.SetRootCAs(tlstest.NewCA(t).Pool())
	c = connect(t, server, client(firstList)).refused(t)
	require.ErrorContains(t, c.clientErr, "unknown authority")
	m.SetRootCAs(nil)

	// A key that is not that of its config would be found by clients only.
	foreign, _ := newECH(t, 3, "public.test")
	foreignKey, _ := pem.Decode(foreign)
	_, config := pem.Decode(second)
	write(t, dir, "ech.pem", append(pem.EncodeToMemory(foreignKey), config...))
	require.ErrorContains(t, m.Reload(t.Context()), "Encrypted Client Hello key")
	connect(t, server, client(secondList)).ok(t)
}

func TestKeyLog(t *testing.T) {
	ca := tlstest.NewCA(t)
	path := filepath.Join(t.TempDir(), "keys")
	source := certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()}, RootCAs: ca.Pool()}
	silent := newManager(t, certmanager.Options{Source: source})
	connect(t, silent.ServerTLS(), silent.ClientTLS("localhost")).ok(t)
	assert.False(t, silent.Status().KeyLog)

	t.Setenv("SSLKEYLOGFILE", "/nowhere/keys")
	_, err := certmanager.New(certmanager.Options{Source: source})
	require.ErrorContains(t, err, "SSLKEYLOGFILE")
	t.Setenv("SSLKEYLOGFILE", path)
	var log logBuffer
	m := newManager(t, certmanager.Options{Source: source, Logger: log.logger()})
	connect(t, m.ServerTLS(), m.ClientTLS("localhost")).ok(t)
	secrets, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Contains(t, string(secrets), "SERVER_TRAFFIC_SECRET_0")
	assert.Contains(t, log.String(), "level=WARN")
	assert.Contains(t, log.String(), path)
	assert.True(t, m.Status().KeyLog)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077)
}

// A manager shows the certificate that the server asks for, and none to others.
func TestClientCertificateSelection(t *testing.T) {
	one, two, three := tlstest.NewCA(t), tlstest.NewCA(t), tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{
		one.Issue(t, tlstest.Leaf{Usage: tlstest.ServerOnly}).Certificate(),
		one.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: "one"}).Certificate(),
		two.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: "two"}).Certificate(),
	}}})
	for want, ca := range map[string]*tlstest.CA{"one": one, "two": two, "": three} {
		m.SetRootCAs(ca.Pool())
		server := ca.MutualServerConfig(t)
		server.ClientAuth = tls.VerifyClientCertIfGiven
		got := connect(t, server, m.ClientTLS("localhost")).ok(t)
		if want == "" {
			assert.Empty(t, got.server.PeerCertificates)
			continue
		}
		assert.Equal(t, want, got.server.PeerCertificates[0].Subject.CommonName)
	}
}

// A certificate that ended in service, since nobody renewed it, makes way for the next that the
// server accepts.
func TestEndedClientCertificateMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		lasting := func(name string, d time.Duration) tls.Certificate {
			return ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, CommonName: name, NotAfter: time.Now().Add(d)}).Certificate()
		}
		m := newManager(t, certmanager.Options{Source: certmanager.Static{RootCAs: ca.Pool(), Certificates: []tls.Certificate{lasting("first", time.Hour), lasting("second", 2*time.Hour)}}})
		server := ca.ServerConfig(t)
		server.ClientAuth = tls.RequestClientCert // what it verifies is another matter
		for _, want := range []string{"first", "second", "first"} {
			client := m.ClientTLS("localhost")
			client.ClientSessionCache = nil
			got := connectPipe(server, client).ok(t)
			assert.Equal(t, want, got.server.PeerCertificates[0].Subject.CommonName)
			time.Sleep(61 * time.Minute)
		}
	})
}

// Only the two roles that a certificate allows are played: a client's is not served.
func TestClientOnlyCertificateIsNotServed(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, Names: []string{"localhost"}}))})
	require.ErrorIs(t, connect(t, m.ServerTLS(), ca.ClientConfig(t, "localhost")).serverErr, certmanager.ErrNoCertificate)
	_, err := certmanager.New(certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, Names: []string{"localhost"}})), RequireNames: []string{"localhost"}})
	require.ErrorIs(t, err, certmanager.ErrNotCovered)
}

// A client that names nothing gets the certificate of the address that it dialled.
func TestCertificateOfTheLocalAddress(t *testing.T) {
	ca := tlstest.NewCA(t)
	other, here := ca.Issue(t, tlstest.Leaf{Names: []string{"other.test", "127.0.0.9"}}), ca.Issue(t, tlstest.Leaf{Names: []string{"here.test", "127.0.0.1"}})
	m := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{other.Certificate(), here.Certificate()}}})
	c := connect(t, m.ServerTLS(), ca.ClientConfig(t, "127.0.0.1")).ok(t)
	assert.True(t, here.Leaf.Equal(c.client.PeerCertificates[0]))
	c = connect(t, m.ServerTLS(), ca.ClientConfig(t, "other.test")).ok(t)
	assert.True(t, other.Leaf.Equal(c.client.PeerCertificates[0]))
}

// An international name is asked for, required and authorized in any of its spellings.
func TestInternationalNames(t *testing.T) {
	ca := tlstest.NewCA(t)
	const ascii, unicode = "xn--bcher-kva.test", "Bücher.test"
	pair := ca.Issue(t, tlstest.Leaf{Names: []string{ascii}})
	m := newManager(t, certmanager.Options{
		RequireNames: []string{unicode, "XN--BCHER-KVA.test."}, ClientRule: certmanager.DNSName(unicode),
		Source: certmanager.Static{Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate(), pair.Certificate()}, ClientCAs: ca.Pool()},
	})
	client := ca.ClientConfig(t, ascii)
	client.Certificates = []tls.Certificate{pair.Certificate()}
	c := connect(t, m.ServerTLS(), client).ok(t)
	assert.True(t, pair.Leaf.Equal(c.client.PeerCertificates[0]))

	caller := newManager(t, certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{pair.Certificate()}, RootCAs: ca.Pool()}})
	assert.Equal(t, ascii, connect(t, m.ServerTLS(), caller.ClientTLS(unicode)).ok(t).server.ServerName)
	caller.SetServerName(unicode)
	assert.Equal(t, ascii, connect(t, m.ServerTLS(), caller.ClientTLS("")).ok(t).server.ServerName)
	connect(t, m.ServerTLS(), caller.ClientTLS("b\u00fccher.example")).refused(t)
}

// Certificates of real files are chosen without parsing them again: crypto/tls parses those
// whose Leaf is not set.
func TestRealLookupDoesNotParse(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "ec")
	ca.Issue(t, tlstest.Leaf{Key: tlstest.RSA2048}).Files(t, dir, "rsa")
	m := newManager(t, certmanager.Options{Source: certmanager.Files{Dir: dir}})
	get := m.GetCertificateFunc()
	for _, version := range versions {
		for _, name := range []string{"localhost", "127.0.0.1"} {
			var hello *tls.ClientHelloInfo
			server := m.ServerTLS().Clone()
			server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { hello = h; return nil, nil }
			client := ca.ClientConfig(t, name)
			client.MaxVersion = version
			connect(t, server, client).ok(t)
			assert.Less(t, testing.AllocsPerRun(100, func() {
				if cert, err := get(hello); err != nil || cert.Leaf == nil {
					t.Error("no certificate, or one that crypto/tls would parse")
				}
			}), 10.0, "%x %s", version, name)
		}
	}
}

// What a program sets on the config of a server counts, or no handshake succeeds: it may rely on it
// to keep clients out.
func TestConfigOfAServerIsEdited(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: leaf(ca.Issue(t, tlstest.Leaf{}))})
	handshake := func(edit func(*tls.Config), version uint16) (serverErr, clientErr error) {
		server, client := m.ServerTLS(), ca.ClientConfig(t, "localhost")
		edit(server)
		client.MaxVersion = version
		_, serverErr, clientErr = meet(t, server, client)
		return serverErr, clientErr
	}
	for field, edit := range map[string]func(*tls.Config){
		"ClientAuth":       func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert },
		"ClientCAs":        func(c *tls.Config) { c.ClientCAs = ca.Pool() },
		"Certificates":     func(c *tls.Config) { c.Certificates = []tls.Certificate{ca.Issue(t, tlstest.Leaf{}).Certificate()} },
		"VerifyConnection": func(c *tls.Config) { c.VerifyConnection = func(tls.ConnectionState) error { return errors.New("no") } },
		"VerifyPeerCertificate": func(c *tls.Config) {
			c.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return errors.New("no") }
		},
	} {
		for _, version := range versions {
			serverErr, clientErr := handshake(edit, version)
			require.ErrorContains(t, serverErr, field+" was set")
			require.Error(t, clientErr)
		}
	}
	_, err := handshake(func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, tls.VersionTLS12)
	require.ErrorContains(t, err, "protocol version")
	_, err = handshake(func(c *tls.Config) { c.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256} }, tls.VersionTLS12)
	require.Error(t, err, "the key is ECDSA")
	_, err = handshake(func(c *tls.Config) { c.CurvePreferences, c.MaxVersion = []tls.CurveID{tls.X25519}, tls.VersionTLS12 }, tls.VersionTLS13)
	require.NoError(t, err)

	server := m.ServerTLS()
	server.MaxVersion = tls.VersionTLS12
	assert.Equal(t, uint16(tls.VersionTLS12), connect(t, server, ca.ClientConfig(t, "localhost")).ok(t).client.Version)
	m.Update(ca.Issue(t, tlstest.Leaf{}).Certificate())
	assert.Equal(t, uint16(tls.VersionTLS12), connect(t, server, ca.ClientConfig(t, "localhost")).ok(t).client.Version, "after a reload")
}

// A certificate names an address without the interface that leads to it, which a client has to
// name.
func TestClientOfLinkLocalAddress(t *testing.T) {
	ca := tlstest.NewCA(t)
	m := newManager(t, certmanager.Options{Source: certmanager.Static{
		Certificates: []tls.Certificate{ca.Issue(t, tlstest.Leaf{Names: []string{"fe80::1"}}).Certificate()}, RootCAs: ca.Pool(),
	}})
	connect(t, m.ServerTLS(), m.ClientTLS("fe80::1%eth0")).ok(t)
	connect(t, m.ServerTLS(), m.ClientTLS("fe80::2%eth0")).refused(t)
}
