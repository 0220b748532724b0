package tlstest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handshake runs one handshake over loopback and passes one byte from the
// server to the client: a TLS 1.3 client hears of its refusal only when it
// reads. Over net.Pipe, an alert and the other side's last flight deadlock.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer near.Close()
	far, err := listener.Accept()
	require.NoError(t, err)
	defer far.Close()
	deadline := time.Now().Add(30 * time.Second)
	require.NoError(t, errors.Join(near.SetDeadline(deadline), far.SetDeadline(deadline)))

	done := make(chan error, 1)
	go func() {
		_, err := tls.Server(far, server).Write([]byte{1})
		done <- err
	}()
	_, clientErr = tls.Client(near, client).Read(make([]byte, 1))
	return <-done, clientErr
}

var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

func TestServerLeaf(t *testing.T) {
	root := tlstest.NewCA(t)
	sub := root.Intermediate(t)
	deep := sub.Intermediate(t)
	otherCA := tlstest.NewCA(t)

	tests := []struct {
		name   string
		issuer *tlstest.CA
		leaf   tlstest.Leaf
		expect string // the name that the client expects
		refuse string // a part of the client's error
	}{
		{"zero value, name", root, tlstest.Leaf{}, "localhost", ""},
		{"zero value, IPv4", root, tlstest.Leaf{}, "127.0.0.1", ""},
		{"zero value, IPv6", root, tlstest.Leaf{}, "::1", ""},
		{"RSA", root, tlstest.Leaf{Key: tlstest.RSA2048}, "localhost", ""},
		{"Ed25519", root, tlstest.Leaf{Key: tlstest.Ed25519}, "localhost", ""},
		{"wildcard", root, tlstest.Leaf{Names: []string{"*.example.test"}}, "a.example.test", ""},
		{"server only", root, tlstest.Leaf{Usage: tlstest.ServerOnly}, "localhost", ""},
		{"intermediate", sub, tlstest.Leaf{}, "localhost", ""},
		{"two intermediates", deep, tlstest.Leaf{}, "localhost", ""},
		{"client only", root, tlstest.Leaf{Names: []string{"localhost"}, Usage: tlstest.ClientOnly}, "localhost", "incompatible key usage"},
		{"wrong usage", root, tlstest.Leaf{Usage: tlstest.WrongUsage}, "localhost", "incompatible key usage"},
		{"expired", root, tlstest.Leaf{}.Expired(), "localhost", "expired"},
		{"not yet valid", root, tlstest.Leaf{}.NotYetValid(), "localhost", "not yet valid"},
		{"another name", root, tlstest.Leaf{Names: []string{"example.test"}}, "localhost", "not localhost"},
		{"another root", otherCA, tlstest.Leaf{}, "localhost", "unknown authority"},
	}
	for _, test := range tests {
		for version, number := range versions {
			t.Run(test.name+"/"+version, func(t *testing.T) {
				server := &tls.Config{Certificates: []tls.Certificate{test.issuer.Issue(t, test.leaf).Certificate()}}
				client := root.ClientConfig(t, test.expect)
				client.MaxVersion = number
				serverErr, clientErr := handshake(t, server, client)
				if test.refuse == "" {
					require.NoError(t, errors.Join(serverErr, clientErr))
					return
				}
				require.ErrorContains(t, clientErr, test.refuse)
				require.Error(t, serverErr)
			})
		}
	}
}

func TestClientLeaf(t *testing.T) {
	root, otherCA := tlstest.NewCA(t), tlstest.NewCA(t)
	server := root.MutualServerConfig(t)
	client := tlstest.Leaf{CommonName: "client", Usage: tlstest.ClientOnly}
	serverOnly := tlstest.Leaf{Usage: tlstest.ServerOnly}

	tests := []struct {
		name   string
		client *tls.Config
		refuse string // a part of the server's error
	}{
		{"client", root.MutualClientConfig(t, "localhost", client), ""},
		{"none", root.ClientConfig(t, "localhost"), "didn't provide a certificate"},
		{"expired", root.MutualClientConfig(t, "localhost", client.Expired()), "expired"},
		{"server only", root.MutualClientConfig(t, "localhost", serverOnly), "incompatible key usage"},
		{"another root", otherCA.MutualClientConfig(t, "localhost", client), "unknown authority"},
	}
	for _, test := range tests {
		for version, number := range versions {
			t.Run(test.name+"/"+version, func(t *testing.T) {
				config := test.client.Clone()
				config.RootCAs, config.MaxVersion = root.Pool(), number
				serverErr, clientErr := handshake(t, server, config)
				if test.refuse == "" {
					require.NoError(t, errors.Join(serverErr, clientErr))
					return
				}
				require.ErrorContains(t, serverErr, test.refuse)
				require.ErrorContains(t, clientErr, "remote error: tls:")
			})
		}
	}
}

func TestIssueFillsTheLeaf(t *testing.T) {
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{
		Names: []string{"a.example.test", "192.0.2.1", "2001:db8::1"},
		URIs:  []string{"spiffe://example.test/a"},
	})
	assert.Equal(t, "a.example.test", pair.Leaf.Subject.CommonName)
	assert.Equal(t, []string{"a.example.test"}, pair.Leaf.DNSNames)
	assert.Equal(t, "[192.0.2.1 2001:db8::1]", fmt.Sprint(pair.Leaf.IPAddresses))
	assert.Equal(t, "spiffe://example.test/a", pair.Leaf.URIs[0].String())
	assert.Equal(t, ca.Certificate().SubjectKeyId, pair.Leaf.AuthorityKeyId)
	assert.NotEmpty(t, ca.Certificate().SubjectKeyId)

	client := ca.Issue(t, tlstest.Leaf{Usage: tlstest.ClientOnly, URIs: []string{"spiffe://example.test/b"}})
	assert.Equal(t, "spiffe://example.test/b", client.Leaf.Subject.CommonName)
	assert.Empty(t, client.Leaf.DNSNames)

	assert.IsType(t, &ecdsa.PrivateKey{}, ca.Issue(t, tlstest.Leaf{}).Key)
	assert.IsType(t, &rsa.PrivateKey{}, ca.Issue(t, tlstest.Leaf{Key: tlstest.RSA2048}).Key)
	assert.IsType(t, ed25519.PrivateKey{}, ca.Issue(t, tlstest.Leaf{Key: tlstest.Ed25519}).Key)
}

func TestSerialsAreUniqueAndPositive(t *testing.T) {
	ca := tlstest.NewCA(t)
	seen := map[string]bool{}
	for range 200 {
		serial := ca.Issue(t, tlstest.Leaf{}).Leaf.SerialNumber
		require.Equal(t, 1, serial.Sign())
		require.Equal(t, 128, serial.BitLen())
		seen[serial.String()] = true
	}
	assert.Len(t, seen, 200)
}

func TestImpossibleLeaves(t *testing.T) {
	ca := tlstest.NewCA(t)
	now := time.Now()
	for want, leaf := range map[string]tlstest.Leaf{
		"empty text":          {Names: []string{""}},
		"Leaf.URIs":           {URIs: []string{"%zz"}},
		"Leaf.Usage 9":        {Usage: 9},
		"Leaf.Key 9":          {Key: 9},
		"not after NotBefore": {NotBefore: now, NotAfter: now.Add(-time.Hour)},
		"IA5String":           {Names: []string{"bücher.example"}},
	} {
		_, err := ca.Generate(leaf)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "tlstest: ")
	}
}

// failer is a TB that records its failure, as a program's own would.
type failer struct{ failure string }

func (f *failer) Helper()                           {}
func (f *failer) Fatalf(format string, args ...any) { f.failure = fmt.Sprintf(format, args...) }

func TestFailureEndsTheTest(t *testing.T) {
	var f failer
	tlstest.NewCA(t).Issue(&f, tlstest.Leaf{Usage: 9})
	assert.Equal(t, "tlstest: Leaf.Usage 9 is unknown", f.failure)
}

func TestEditedCA(t *testing.T) {
	end := time.Date(2085, 1, 1, 0, 0, 0, 0, time.UTC)
	ca := tlstest.NewCA(t, func(c *x509.Certificate) { c.Subject.CommonName, c.NotAfter = "old root", end })
	assert.Equal(t, "old root", ca.Certificate().Subject.CommonName)
	assert.Equal(t, end, ca.Certificate().NotAfter)
	assert.NotEqual(t, tlstest.NewCA(t).Certificate().Subject.String(), tlstest.NewCA(t).Certificate().Subject.String())
}

// Who has a file open keeps what it was: it is replaced, not written to.
func TestFilesAreReplaced(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows replaces no open file")
	}
	ca, dir := tlstest.NewCA(t), t.TempDir()
	first := ca.Issue(t, tlstest.Leaf{})
	for path, want := range map[string][]byte{"server.crt": first.CertPEM, "server.key": first.KeyPEM} {
		first.Files(t, dir, "server")
		file, err := os.Open(filepath.Join(dir, path))
		require.NoError(t, err)
		defer file.Close()
		ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "server")
		got, err := io.ReadAll(file)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, got), path)
	}
}

func TestFiles(t *testing.T) {
	ca := tlstest.NewCA(t).Intermediate(t)
	dir := t.TempDir()
	for range 2 {
		pair := ca.Issue(t, tlstest.Leaf{})
		certFile, keyFile := pair.Files(t, dir, "server")
		assert.Equal(t, filepath.Join(dir, "server.crt"), certFile)
		assert.Equal(t, filepath.Join(dir, "server.key"), keyFile)

		loaded, err := tls.LoadX509KeyPair(certFile, keyFile)
		require.NoError(t, err)
		assert.Equal(t, pair.Certificate().Certificate, loaded.Certificate)
		assert.Len(t, loaded.Certificate, 2)
		assert.Equal(t, pair.Leaf.SerialNumber, loaded.Leaf.SerialNumber)

		info, err := os.Stat(keyFile)
		require.NoError(t, err)
		if runtime.GOOS != "windows" {
			assert.Equal(t, os.FileMode(0o600), info.Mode())
		}
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 2, "no temporary file stays")

	_, _, err = ca.Issue(t, tlstest.Leaf{}).WriteFiles(filepath.Join(dir, "missing"), "server")
	require.ErrorIs(t, err, os.ErrNotExist)

	require.NoError(t, os.Mkdir(filepath.Join(dir, "taken"), 0o700))
	require.Error(t, tlstest.WriteFile(filepath.Join(dir, "taken"), nil, 0o600))
	entries, err = os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "a failed write leaves no temporary file")
}
