package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/smtp"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) {
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"))
}

// serve starts the server and returns its address, and the configuration of a client.
func serve(t *testing.T) (string, *tls.Config) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{}).Files(t, t.TempDir(), "server")
	certs, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}})
	require.NoError(t, err)
	t.Cleanup(func() { certs.Close() })
	port := needs.Port(t)
	node, err := start(port, certs)
	require.NoError(t, err)
	t.Cleanup(func() { node.Stop() })
	return fmt.Sprintf("localhost:%d", port), ca.ClientConfig(t, "localhost")
}

func TestOpenSSL(t *testing.T) {
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		t.Run(version, func(t *testing.T) {
			addr, _ := serve(t)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			openssl := exec.CommandContext(ctx, needs.Program(t, "openssl"), "s_client", "-starttls", "smtp", "-connect", addr, version, "-crlf", "-ign_eof")
			openssl.Stdin = strings.NewReader("NOOP\nnonsense\nQUIT\n")
			output, err := openssl.CombinedOutput()
			require.NoError(t, err, "%s", output)
			assert.Contains(t, string(output), "Cipher is")
			assert.Contains(t, string(output), "500 what?")
			assert.Contains(t, string(output), "221 bye")
		})
	}
}

func TestMail(t *testing.T) {
	addr, config := serve(t)
	client, err := smtp.Dial(addr)
	require.NoError(t, err)
	require.NoError(t, client.StartTLS(config))
	_, secure := client.TLSConnectionState()
	assert.True(t, secure)
	again, _ := client.Extension("STARTTLS")
	assert.False(t, again, "it is not offered over TLS")
	require.NoError(t, client.Text.PrintfLine("STARTTLS"))
	_, _, err = client.Text.ReadResponse(503)
	require.NoError(t, err, "it is over TLS already")
	require.NoError(t, client.Mail("me@example.test"))
	require.NoError(t, client.Rcpt("you@example.test"))
	require.NoError(t, client.Quit())
}
