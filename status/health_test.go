package status_test

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/status"
	"github.com/ergotls/ergotls/tlstest"
)

func health(handler http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealthOfWhatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := tlstest.NewCA(t)
		leaf := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)})
		m, err := certmanager.New(certmanager.Options{
			Source: certmanager.Static{Certificates: []tls.Certificate{leaf.Certificate()}}, Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		defer m.Close()
		page := status.New()
		defer page.Close()
		code, _ := health(page, "/healthz")
		assert.Equal(t, http.StatusOK, code, "nothing is shown")
		page.AddManager("main", m, nil)
		code, body := health(page, "/healthz")
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "ok\n", body)
		time.Sleep(2 * time.Hour)
		code, body = health(page, "/healthz")
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, "main: CertificatesValid: 1 certificate has expired or is not valid yet\n", body)
		page.SetHealth(status.NothingExpired, status.NoDrift)
		code, body = health(page.Health(), "/anything")
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, "main: NothingExpired: 1 certificate has expired or is not valid yet\n", body)
		page.SetHealth(status.NoDrift)
		code, _ = health(page, "/healthz")
		assert.Equal(t, http.StatusOK, code)
	})
}

func TestHealthOfReloads(t *testing.T) {
	dir, ca := t.TempDir(), tlstest.NewCA(t)
	cert, key := ca.Issue(t, tlstest.Leaf{Names: []string{"localhost"}}).Files(t, dir, "a")
	m, err := certmanager.New(certmanager.Options{Source: certmanager.Files{Cert: cert, Key: key}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer m.Close()
	page := status.New()
	defer page.Close()
	page.AddManager("main", m, nil)
	page.SetHealth(status.CertificatesValid, status.NoDrift)
	require.NoError(t, os.WriteFile(cert, []byte("nonsense"), 0o600))
	require.Error(t, m.Reload(t.Context()))
	code, body := health(page, "/healthz")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, "main: NoDrift: what the source has was rejected\n", body, "no path, no peer")
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/healthz", nil))
	assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
	assert.Panics(t, func() { page.SetHealth(status.Check(9)) })
	assert.Equal(t, "Check(9)", status.Check(9).String())
}

// The answer for a probe is served without the token of the page.
func TestHealthBesideToken(t *testing.T) {
	page := status.New()
	defer page.Close()
	guarded, err := status.Token("0123456789abcdef", page)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/tls/", guarded)
	mux.Handle("/healthz", page.Health())
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/tls/healthz": http.StatusUnauthorized, "/tls/": http.StatusUnauthorized} {
		code, _ := health(mux, path)
		assert.Equal(t, want, code, path)
	}
}
