package certmanager

import (
	"io"
	"net"
	"net/http"
	"strings"
)

const http01Path = "/.well-known/acme-challenge/"

// HTTPHandler answers the HTTP-01 challenges of sources that obtain certificates, such as
// acme.Source. Requests to port 80 of the name must reach it, directly or through a proxy. From the
// first call on HTTP-01 is used if TLS-ALPN-01 fails. All other requests go to fallback; nil
// redirects GET and HEAD to https and refuses other methods.
func (m *Manager) HTTPHandler(fallback http.Handler) http.Handler {
	if fallback == nil {
		fallback = http.HandlerFunc(redirectToHTTPS)
	}
	for _, answer := range m.current.Load().in.material.httpAnswers {
		answer("", "")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, http01Path) {
			fallback.ServeHTTP(w, r)
			return
		}
		for _, answer := range m.current.Load().in.material.httpAnswers {
			if body, ok := answer(r.Host, r.URL.Path); ok {
				w.Header().Set("Content-Type", "text/plain")
				_, _ = io.WriteString(w, body)
				return
			}
		}
		http.Error(w, "no such challenge", http.StatusNotFound)
	})
}

// redirectToHTTPS sends browsers to the same host on port 443.
func redirectToHTTPS(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "use https", http.StatusBadRequest)
		return
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
		if strings.Contains(name, ":") {
			host = "[" + name + "]"
		}
	}
	http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusFound)
}
