package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command runs the command and returns its code and what it wrote.
func command(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var b, errs strings.Builder
	code = run(args, &b, &errs)
	return code, b.String() + errs.String()
}

func jsonOf(t *testing.T, args ...string) (r report) {
	t.Helper()
	_, out := command(t, append(args, "-json")...)
	require.NoError(t, json.Unmarshal([]byte(out), &r), out)
	return r
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// serve starts a server with the files and returns its address.
func serve(t *testing.T, files certmanager.Files) string {
	t.Helper()
	m, err := certmanager.New(certmanager.Options{Source: files, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{TLSConfig: m.ServerTLS(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ServeTLS(listener, "", "")
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return listener.Addr().String()
}

func TestWhatWouldBeServed(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	ca.Issue(t, tlstest.Leaf{Names: []string{"a.example.com", "*.b.example.com"}, Key: tlstest.ECDSAP256}).Files(t, dir, "a")
	ca.Issue(t, tlstest.Leaf{Names: []string{"a.example.com", "192.0.2.1"}, Key: tlstest.RSA2048}).Files(t, dir, "b")
	root := write(t, filepath.Join(t.TempDir(), "root.pem"), ca.PEM())

	code, out := command(t, "-dir", dir, "-root-cas", root, "-name", "a.example.com,x.b.example.com", "-name", "192.0.2.1")
	assert.Equal(t, good, code, out)
	assert.Contains(t, out, "good:")
	assert.Contains(t, out, "clients: not asked for a certificate")
	assert.NotContains(t, out, "not trusted")

	r := jsonOf(t, "-dir", dir)
	require.Len(t, r.Served, 2)
	assert.Equal(t, []string{"a.example.com", "*.b.example.com", "192.0.2.1"}, r.Served[0].Names)
	assert.True(t, r.Served[0].Default)
	assert.Equal(t, filepath.Join(dir, "a.crt"), r.Served[0].Certificate.Origin)
	assert.NotEmpty(t, r.Served[0].ChainError, "the system does not know the CA")
	assert.Equal(t, []string{"192.0.2.1"}, r.Served[0].NotFor)
	assert.Equal(t, []string{"a.example.com", "192.0.2.1"}, r.Served[1].Names)
	assert.Empty(t, r.Served[1].NotFor)
	assert.True(t, r.Served[1].OldClients)
}

func TestWhatWouldBeRefused(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{Names: []string{"a.example.com"}}).Files(t, dir, "a")
	_, other := ca.Issue(t, tlstest.Leaf{Names: []string{"a.example.com"}}).Files(t, dir, "b")
	expired, expiredKey := ca.Issue(t, tlstest.Leaf{Names: []string{"a.example.com"}}.Expired()).Files(t, dir, "c")
	for want, args := range map[string][]string{
		certmanager.ErrMismatch.Error():   {"-cert", cert, "-key", other},
		certmanager.ErrNotCovered.Error(): {"-cert", cert, "-key", key, "-name", "b.example.com"},
		certmanager.ErrExpired.Error():    {"-cert", expired, "-key", expiredKey},
		"no such file":                    {"-cert", filepath.Join(dir, "none"), "-key", key},
	} {
		code, out := command(t, args...)
		assert.Equal(t, refused, code, out)
		assert.Contains(t, out, "REFUSED")
		assert.Contains(t, out, want)
		r := jsonOf(t, args...)
		assert.False(t, r.Good)
		assert.Contains(t, strings.Join(r.Errors, "\n"), want)
	}
}

func TestWhichClientsAreLetIn(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost"}}).Files(t, dir, "server")
	alice := ca.Issue(t, tlstest.Leaf{CommonName: "alice", Usage: tlstest.ClientOnly})
	bob := ca.Issue(t, tlstest.Leaf{CommonName: "bob", Usage: tlstest.ClientOnly})
	bobs, err := x509.ParseCertificate(bob.Certificate().Certificate[0])
	require.NoError(t, err)
	aliceFile, _ := alice.Files(t, dir, "alice")
	bobFile, _ := bob.Files(t, dir, "bob")
	malloryFile, _ := tlstest.NewCA(t).Issue(t, tlstest.Leaf{CommonName: "mallory", Usage: tlstest.ClientOnly}).Files(t, dir, "mallory")
	args := []string{
		"-cert", cert, "-key", key,
		"-client-cas", write(t, filepath.Join(dir, "ca.pem"), ca.PEM()), "-crls", write(t, filepath.Join(dir, "crl.pem"), ca.CRL(t, bobs)),
	}
	code, out := command(t, append(args, "-client", aliceFile)...)
	assert.Equal(t, good, code, out)
	assert.Contains(t, out, "alice): accepted")

	code, out = command(t, append(args, "-client", aliceFile, "-client", bobFile, "-client", malloryFile, "-client", key)...)
	assert.Equal(t, refused, code, out)
	r := jsonOf(t, append(args, "-client", aliceFile+","+bobFile+","+malloryFile+","+key)...)
	require.Len(t, r.Clients, 4)
	assert.True(t, r.Clients[0].LetIn)
	assert.Contains(t, r.Clients[1].Error, certmanager.ErrRevoked.Error())
	assert.Contains(t, r.Clients[2].Error, certmanager.ErrUntrusted.Error())
	assert.Contains(t, r.Clients[3].Error, "it holds no certificate, but a private key")
	assert.NotContains(t, out, "PRIVATE KEY")
}

func TestAgainstARunningServer(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	root := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	leaf := tlstest.Leaf{Names: []string{"localhost", "*.example.com"}}
	cert, key := ca.Issue(t, leaf).Files(t, dir, "old")
	leaf.NotAfter = time.Now().Add(100 * 24 * time.Hour)
	newer, newerKey := ca.Issue(t, leaf).Files(t, dir, "new")
	for name, files := range map[string]certmanager.Files{
		"one-sided": {Cert: cert, Key: key},
		"mutual":    {Cert: cert, Key: key, ClientCAs: root},
	} {
		t.Run(name, func(t *testing.T) {
			address := serve(t, files)
			code, out := command(t, "-cert", cert, "-key", key, "-against", address)
			assert.Equal(t, good, code, out)
			assert.Contains(t, out, "localhost: the same")
			assert.Contains(t, out, "*.example.com: the same")

			code, out = command(t, "-cert", newer, "-key", newerKey, "-against", address)
			assert.Equal(t, differs, code, out)
			assert.Contains(t, out, "localhost: OTHER: ")
		})
	}
	address := serve(t, certmanager.Files{Cert: newer, Key: newerKey})
	code, out := command(t, "-cert", cert, "-key", key, "-against", address)
	assert.Equal(t, differs, code)
	assert.Contains(t, out, "ends later than that of the files")
}

func TestAgainstNoServer(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost"}}).Files(t, dir, "a")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	listener.Close()
	code, out := command(t, "-cert", cert, "-key", key, "-against", listener.Addr().String())
	assert.Equal(t, differs, code)
	assert.Contains(t, out, "cannot be asked")

	// A server that speaks no TLS.
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(plain) }()
	defer func() { server.Close(); <-done }()
	code, out = command(t, "-cert", cert, "-key", key, "-against", plain.Addr().String())
	assert.Equal(t, differs, code)
	assert.Contains(t, out, "shows no certificate")
}

// The versions of TLS differ in when a server asks for the client's certificate.
func TestAgainstTLS12WithClientCertificates(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost"}})
	cert, key := pair.Files(t, dir, "a")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair.Certificate()}, MaxVersion: tls.VersionTLS12,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	defer func() { listener.Close(); <-done }()
	code, out := command(t, "-cert", cert, "-key", key, "-against", listener.Addr().String())
	assert.Equal(t, good, code, out)
}

func TestWrongOptions(t *testing.T) {
	for want, args := range map[string][]string{
		"no file is named":          {},
		"-key without -cert":        {"-key", "a"},
		"-pkcs12-password without":  {"-cert", "a", "-pkcs12-password", "a"},
		"-client without":           {"-cert", "a", "-client", "a"},
		"is not host:port":          {"-cert", "a", "-against", "localhost"},
		"nothing to compare":        {"-client-cas", "a", "-against", "localhost:1"},
		"unexpected argument":       {"-cert", "a", "b"},
		"an element is empty":       {"-cert", "a", "-name", "a,,b"},
		"flag provided but not def": {"-certs", "a"},
	} {
		code, out := command(t, args...)
		assert.Equal(t, usage, code, out)
		assert.Contains(t, out, want)
	}
	code, out := command(t, "-h")
	assert.Equal(t, good, code)
	for _, option := range []string{"-cert", "-dir", "-pkcs12", "-client-cas", "-root-cas", "-crls", "-crl-issuers", "-ech-keys", "-ticket-keys", "-against"} {
		assert.Contains(t, out, option)
	}
}
