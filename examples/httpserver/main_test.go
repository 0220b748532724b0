package main

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/tlstest"
)

func TestServe(t *testing.T) {
	defer goleak.VerifyNone(t)
	ca, dir := tlstest.NewCA(t), t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "server")
	require.NoError(t, tlstest.WriteFile(dir+"/root.crt", ca.PEM(), 0o644))
	listener, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, listener, certmanager.Files{Cert: cert, Key: key, ClientCAs: dir + "/root.crt"})
	}()
	alice := ca.Issue(t, tlstest.Leaf{CommonName: "alice"}).Certificate()
	for _, certs := range [][]tls.Certificate{{alice}, nil} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", Certificates: certs}}
		response, err := (&http.Client{Transport: transport}).Get("https://" + listener.Addr().String())
		if certs == nil {
			assert.ErrorContains(t, err, "certificate required")
			continue
		}
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		response.Body.Close()
		assert.Equal(t, "hello alice\n", string(text))
		transport.CloseIdleConnections()
	}
	stop()
	assert.NoError(t, <-served)
}

// The program ends after http.Server.Shutdown, which waits for clients that are about to send a
// request, and not before.
func TestServeWaitsForClients(t *testing.T) {
	defer goleak.VerifyNone(t)
	ca, dir := tlstest.NewCA(t), t.TempDir()
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, dir, "server")
	listener, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, certmanager.Files{Cert: cert, Key: key}) }()
	conn, err := tls.Dial("tcp", listener.Addr().String(), ca.ClientConfig(t, "localhost"))
	require.NoError(t, err)
	defer conn.Close()
	stop()
	select {
	case <-served:
		t.Fatal("the program ended while a client was connected")
	case <-time.After(200 * time.Millisecond):
	}
	require.NoError(t, conn.Close())
	assert.NoError(t, <-served)
}
