package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// asProgram is set in the environment of a test binary that is to be this program.
const asProgram = "ERGOTLS_TEST_MTLS"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
}

func TestDemonstration(t *testing.T) {
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
	server, err := startEcho(node, "127.0.0.1:0", manager, nil)
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
