package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
)

func TestChat(t *testing.T) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	dir := t.TempDir()
	issue(dir, "server", "alice", "bob")
	root, err := os.ReadFile(filepath.Join(dir, "root.crt"))
	require.NoError(t, err)
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{
		Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"), ClientCAs: filepath.Join(dir, "root.crt"),
	}})
	require.NoError(t, err)
	defer certs.Close()
	port := needs.Port(t)
	node, err := start(port, certs)
	require.NoError(t, err)
	defer node.Stop()

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	join := func(name string) (*tls.Conn, func(want string)) {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		require.NoError(t, err)
		conn, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", port), &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{pair}})
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		lines := bufio.NewScanner(conn)
		return conn, func(want string) {
			t.Helper()
			require.True(t, lines.Scan(), "want %q, got the end: %v", want, lines.Err())
			assert.Equal(t, want, lines.Text())
		}
	}
	alice, aliceHears := join("alice")
	aliceHears("* alice is here")
	bob, bobHears := join("bob")
	aliceHears("* bob is here")
	bobHears("* bob is here")
	for i := range 50 { // more than the credit of ten lines
		fmt.Fprintf(bob, "line %d\n", i)
		aliceHears(fmt.Sprintf("bob: line %d", i))
		bobHears(fmt.Sprintf("bob: line %d", i))
	}
	require.NoError(t, alice.Close())
	bobHears("* alice has gone (closed by peer)")
	require.NoError(t, bob.Close())
}
