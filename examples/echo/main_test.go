package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

func TestEcho(t *testing.T) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, t.TempDir(), "server")
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}})
	require.NoError(t, err)
	defer certs.Close()
	port := needs.Port(t)
	node, err := start(port, certs)
	require.NoError(t, err)
	defer node.Stop()
	conn, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", port), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "hello")
	require.NoError(t, err)
	got := make([]byte, 5)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(got))
}
