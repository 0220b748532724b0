package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// handshake is a mutual TLS handshake with the files of a folder.
func handshake(t *testing.T, dir, serverName string) error {
	t.Helper()
	load := func(name string) tls.Certificate {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		require.NoError(t, err)
		return cert
	}
	root, err := os.ReadFile(filepath.Join(dir, "root.crt"))
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(root))
	left, right := net.Pipe()
	defer left.Close()
	defer right.Close()
	server := tls.Server(left, &tls.Config{
		Certificates: []tls.Certificate{load("server")}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	answered := make(chan error, 1)
	go func() { answered <- server.Handshake() }()
	err = tls.Client(right, &tls.Config{
		Certificates: []tls.Certificate{load("client")}, RootCAs: roots, ServerName: serverName,
	}).Handshake()
	right.Close()
	<-answered
	return err
}

func TestFilesServeMutualTLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	var out strings.Builder
	require.NoError(t, run([]string{"-dir", dir, "-names", "localhost, 127.0.0.1,db.example.test", "-client", "alice"}, &out))
	for _, name := range []string{"localhost", "127.0.0.1", "db.example.test"} {
		assert.NoError(t, handshake(t, dir, name), name)
	}
	assert.Error(t, handshake(t, dir, "other.example.test"))
	assert.Contains(t, out.String(), "For development only")
	assert.Contains(t, out.String(), "alice")
	ignore, err := os.ReadFile(filepath.Join(dir, ".gitignore"))
	require.NoError(t, err)
	assert.Equal(t, "*\n", string(ignore))
	for _, name := range []string{"server.key", "client.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}
	assert.NoFileExists(t, filepath.Join(dir, "root.key"))
}

// A Manager warns in the last third of a lifetime, and at most 30 days before its end. New
// certificates, the root among them, are not there yet.
func TestNewCertificatesDoNotExpireSoon(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, run([]string{"-dir", dir}, io.Discard))
	for _, name := range []string{"root", "server", "client"} {
		text, err := os.ReadFile(filepath.Join(dir, name+".crt"))
		require.NoError(t, err)
		block, _ := pem.Decode(text)
		require.NotNil(t, block)
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		lifetime := cert.NotAfter.Sub(cert.NotBefore)
		assert.Greater(t, time.Until(cert.NotAfter), min(30*24*time.Hour, lifetime/3), "%s: of %v", name, lifetime)
	}
}

func TestExistingFilesAreKept(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "client.key"), []byte("mine"), 0o600))
	err := run([]string{"-dir", dir}, &strings.Builder{})
	require.ErrorContains(t, err, filepath.Join(dir, "client.key")+" exists")
	assert.NoFileExists(t, filepath.Join(dir, "root.crt"))
	require.NoError(t, run([]string{"-dir", dir, "-force"}, &strings.Builder{}))
	assert.NoError(t, handshake(t, dir, "localhost"))
}

func TestMistakesAreNamed(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"argument": {[]string{"localhost"}, `unexpected argument "localhost"`},
		"days":     {[]string{"-days", "0"}, "-days 0 is not between 1 and 3650"},
		"folder":   {[]string{"-dir", "/dev/null/certs"}, "/dev/null/certs"},
		"url":      {[]string{"-names", "https://localhost"}, `-names: "https://localhost" is not a DNS name`},
		"port":     {[]string{"-names", "localhost:4433"}, `leave out the scheme, port and path`},
		"flag":     {[]string{"-nmaes", "x"}, "flag provided but not defined"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"-dir", filepath.Join(t.TempDir(), "certs")}, test.args...)
			require.ErrorContains(t, run(args, &strings.Builder{}), test.says)
		})
	}
}
