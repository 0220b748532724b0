package status_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/status"
)

func TestToken(t *testing.T) {
	const token = "correct-horse-battery"
	page := status.New()
	defer page.Close()
	handler, err := status.Token(token, page)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		prepare func(*http.Request)
		code    int
	}{
		"none":           {func(*http.Request) {}, http.StatusUnauthorized},
		"bearer":         {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, http.StatusOK},
		"basic":          {func(r *http.Request) { r.SetBasicAuth("anyone", token) }, http.StatusOK},
		"wrong bearer":   {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") }, http.StatusUnauthorized},
		"beginning":      {func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token[:16]) }, http.StatusUnauthorized},
		"empty bearer":   {func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, http.StatusUnauthorized},
		"token as user":  {func(r *http.Request) { r.SetBasicAuth(token, "") }, http.StatusUnauthorized},
		"in the address": {func(r *http.Request) { r.URL.RawQuery = "token=" + token }, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
			test.prepare(r)
			handler.ServeHTTP(w, r)
			assert.Equal(t, test.code, w.Code)
			assert.Equal(t, test.code == http.StatusUnauthorized, w.Header().Get("WWW-Authenticate") != "")
			assert.NotContains(t, w.Body.String(), token)
		})
	}
	for _, short := range []string{"", "secret", strings.Repeat("x", 15)} {
		_, err := status.Token(short, page)
		assert.ErrorContains(t, err, "can be guessed")
		if short != "" {
			assert.NotContains(t, err.Error(), short)
		}
	}
}

func TestServe(t *testing.T) {
	page := status.New()
	served := make(chan error, 2)
	serve := func(network, addr string) net.Addr {
		listener, err := net.Listen(network, addr)
		require.NoError(t, err)
		go func() { served <- page.Serve(listener) }()
		return listener.Addr()
	}
	tcp, socket := serve("tcp", "127.0.0.1:0"), serve("unix", filepath.Join(t.TempDir(), "s"))
	for name, test := range map[string]struct {
		addr net.Addr
		host string
		code int
	}{
		"address":         {tcp, "", http.StatusOK},
		"localhost":       {tcp, "localhost:1234", http.StatusOK},
		"without a port":  {tcp, "LOCALHOST", http.StatusOK},
		"IPv6":            {tcp, "[::1]:8080", http.StatusOK},
		"another host":    {tcp, "evil.example.test", http.StatusMisdirectedRequest},
		"looks like it":   {tcp, "127.0.0.1.example.test:80", http.StatusMisdirectedRequest},
		"begins with it":  {tcp, "localhost.example.test", http.StatusMisdirectedRequest},
		"another address": {tcp, "192.0.2.1", http.StatusMisdirectedRequest},
		"socket":          {socket, "anything", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{
				DisableKeepAlives: true,
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, test.addr.Network(), test.addr.String())
				},
			}}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/", nil)
			require.NoError(t, err)
			r.Host = test.host
			response, err := client.Do(r)
			require.NoError(t, err)
			defer response.Body.Close()
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
			assert.Equal(t, test.code, response.StatusCode)
		})
	}
	require.NoError(t, page.Close())
	assert.ErrorIs(t, <-served, http.ErrServerClosed)
	assert.ErrorIs(t, <-served, http.ErrServerClosed)
}

// A listener that others can reach is refused, and its port is free again.
func TestServeRefusesOthers(t *testing.T) {
	page := status.New()
	defer page.Close()
	for _, addr := range []string{":0", "0.0.0.0:0"} {
		listener, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		assert.ErrorContains(t, page.Serve(listener), "other machines may reach")
		_, err = listener.Accept()
		assert.ErrorIs(t, err, net.ErrClosed)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	assert.ErrorContains(t, page.Serve(&wrapped{listener}), "not known who can reach")
}

type wrapped struct{ net.Listener }

func (w *wrapped) Addr() net.Addr { return &net.IPAddr{} }

// The page is where the program has put it, and nothing is anywhere else.
func TestPaths(t *testing.T) {
	page := status.New()
	defer page.Close()
	mux := http.NewServeMux()
	mux.Handle("GET /tls/", page)
	mux.Handle("/one", page)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", page))
	for _, test := range []struct {
		handler http.Handler
		path    string
		code    int
	}{
		{page, "/", http.StatusOK},
		{page, "/status.json", http.StatusOK},
		{page, "/favicon.ico", http.StatusNotFound},
		{page, "/status.json.bak", http.StatusNotFound},
		{mux, "/tls/", http.StatusOK},
		{mux, "/tls/status.json", http.StatusOK},
		{mux, "/tls/metrics", http.StatusNotFound},
		{mux, "/tls/more/", http.StatusNotFound},
		{mux, "/one", http.StatusOK},
		{mux, "/stripped/", http.StatusOK},
		{mux, "/stripped/status.json", http.StatusOK},
		{mux, "/stripped/other", http.StatusNotFound},
		{mux, "/other", http.StatusNotFound},
	} {
		w := httptest.NewRecorder()
		test.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, test.path, nil))
		assert.Equal(t, test.code, w.Code, test.path)
	}
}
