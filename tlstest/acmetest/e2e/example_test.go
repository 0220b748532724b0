package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// The example gets its certificate from Pebble, with either kind of challenge, serves, redirects,
// renews as an actor, and starts from its cache.
func TestExampleAutocert(t *testing.T) {
	needs.Long(t)
	program := filepath.Join(t.TempDir(), "autocert")
	build := exec.Command("go", "build", "-o", program, "./examples/autocert")
	build.Dir = "../../.."
	output, err := build.CombinedOutput()
	require.NoError(t, err, "%s", output)

	for _, kind := range []string{"tls-alpn-01", "http-01"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ca := short(t)
			w := &world{ca: ca, addr: freeAddr(t), events: &eventLog{}}
			plain, folder := freeAddr(t), t.TempDir()
			roots := filepath.Join(folder, "roots.pem")
			require.NoError(t, os.WriteFile(roots, rootsPEM(ca), 0o600))
			if kind == "http-01" {
				ca.HTTP01(plain)
			} else {
				ca.TLSALPN01(w.addr)
			}
			run := func() (stop func() string) {
				server := exec.Command(program, "-domain", name, "-email", "tls@example.test", "-cache", filepath.Join(folder, "cache"),
					"-directory", ca.Directory(), "-listen", w.addr, "-http", plain)
				server.Env = append(os.Environ(), "SSL_CERT_FILE="+roots)
				var log strings.Builder
				server.Stdout, server.Stderr = &log, &log
				require.NoError(t, server.Start())
				ended := make(chan struct{})
				go func() { server.Wait(); close(ended) }()
				stop = func() string {
					server.Process.Signal(os.Interrupt)
					select {
					case <-ended:
					case <-time.After(10 * time.Second):
						server.Process.Kill()
						<-ended
					}
					return log.String()
				}
				t.Cleanup(func() {
					if log := stop(); t.Failed() {
						t.Log(log)
					}
				})
				return stop
			}
			stop := run()
			first := w.echo(t)
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			defer client.CloseIdleConnections()
			response, err := client.Get("http://" + plain + "/")
			require.NoError(t, err)
			response.Body.Close()
			assert.Equal(t, http.StatusFound, response.StatusCode)

			w.eventually(t, "a renewal, answered by the actors' servers", func() bool { return !w.echo(t).Equal(first) })
			log := stop()
			before := ca.Orders()
			ca.Refuse(http.StatusServiceUnavailable, 0)
			run()
			w.echo(t)
			assert.Equal(t, before, ca.Orders(), "from the cache\n%s", log)
		})
	}
}

// echo sends a word until it comes back, and returns the certificate of who answered.
func (w *world) echo(t *testing.T) (leaf *x509.Certificate) {
	t.Helper()
	w.eventually(t, "an echo", func() bool {
		conn, err := tls.Dial("tcp", w.addr, &tls.Config{ServerName: name, RootCAs: w.ca.Roots()})
		if err != nil {
			return false
		}
		defer conn.Close()
		leaf = conn.ConnectionState().PeerCertificates[0]
		conn.SetDeadline(time.Now().Add(time.Minute))
		_, err = io.WriteString(conn, "echo")
		answer := make([]byte, 4)
		if err == nil {
			_, err = io.ReadFull(conn, answer)
		}
		return err == nil && string(answer) == "echo"
	})
	return leaf
}

// rootsPEM is for a program that has no other way to trust the CA.
func rootsPEM(ca *acmetest.Server) []byte {
	var all []byte
	for _, cert := range ca.RootCertificates() {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return all
}
