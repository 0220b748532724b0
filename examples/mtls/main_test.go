package main

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func TestDemonstration(t *testing.T) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	start := time.Now()
	if err := demonstrate(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s, its readers were promised 10 s", took)
	}
}

// The page of -status shows what the echo server serves.
func TestStatus(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
	ca := tlstest.NewCA(t)
	pair := ca.Issue(t, tlstest.Leaf{})
	cert, key := pair.Files(t, t.TempDir(), "server")
	files := certmanager.Files{Cert: cert, Key: key}
	manager, err := certmanager.New(certmanager.Options{Source: files})
	require.NoError(t, err)
	defer manager.Close()
	node, err := startNode(io.Discard)
	require.NoError(t, err)
	defer node.Stop()
	server, err := startEcho(node, "127.0.0.1:0", manager)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer showStatus(listener, manager, files, server)()
	defer http.DefaultClient.CloseIdleConnections()
	resp, err := http.Get("http://" + listener.Addr().String())
	require.NoError(t, err)
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Contains(t, string(page), pair.Leaf.SerialNumber.Text(16))
	assert.Contains(t, string(page), meta.Stats(server).Listen)
}
