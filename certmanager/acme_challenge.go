package certmanager

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/crypto/acme"
)

const (
	challengeTLSALPN01 = "tls-alpn-01"
	challengeHTTP01    = "http-01"

	http01Path = "/.well-known/acme-challenge/"
)

// acmeTokens are the answers to the challenges that are open on this machine. Those of
// other machines are in the cache, if it is shared.
type acmeTokens struct {
	mu    sync.Mutex
	certs map[string]*tls.Certificate // by name
	http  map[string][]byte           // by URL path
}

// present makes the answer to a challenge known, until remove.
func (s *acmeState) present(ctx context.Context, client *acme.Client, challenge *acme.Challenge, name string) (remove func(), err error) {
	var key string
	var data []byte
	t := &s.tokens
	if challenge.Type == challengeTLSALPN01 {
		cert, err := client.TLSALPN01ChallengeCert(challenge.Token, name)
		if err != nil {
			return nil, err
		}
		if data, err = encodeCached(cert); err != nil {
			return nil, err
		}
		key = tokenCertCacheKey(name)
		t.mu.Lock()
		t.certs[name] = &cert
		t.mu.Unlock()
	} else {
		response, err := client.HTTP01ChallengeResponse(challenge.Token)
		if err != nil {
			return nil, err
		}
		urlPath := client.HTTP01ChallengePath(challenge.Token)
		key, data = httpTokenCacheKey(urlPath), []byte(response)
		t.mu.Lock()
		t.http[urlPath] = data
		t.mu.Unlock()
	}
	if err := s.put(ctx, key, data); err != nil && s.shared() {
		s.emit(CacheFailed, name, err) // no other machine can answer
	}
	return func() {
		t.mu.Lock()
		delete(t.certs, name)
		delete(t.http, client.HTTP01ChallengePath(challenge.Token))
		t.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cacheTime(ctx))
		defer cancel()
		s.o.Cache.Delete(ctx, key)
	}, nil
}

// answerChallenge answers a challenge of any source.
func (m *Manager) answerChallenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, err := acmeNameOf(hello.ServerName)
	if err != nil {
		return nil, err
	}
	for _, s := range m.acme {
		if cert := s.challengeCertificate(hello.Context(), name); cert != nil {
			return cert, nil
		}
	}
	return nil, nil
}

// challengeCertificate is the answer to a challenge, of this machine or of another.
func (s *acmeState) challengeCertificate(ctx context.Context, name string) *tls.Certificate {
	s.tokens.mu.Lock()
	cert := s.tokens.certs[name]
	s.tokens.mu.Unlock()
	if cert != nil {
		return cert
	}
	if !s.shared() || !s.owns(ctx, name) {
		return nil
	}
	data, err := s.get(ctx, tokenCertCacheKey(name))
	if err != nil {
		return nil
	}
	cached, err := decodeCached(data)
	if err != nil {
		return nil
	}
	return &cached
}

// httpToken is the answer to an HTTP-01 challenge, nil if there is none.
func (s *acmeState) httpToken(ctx context.Context, urlPath string) []byte {
	s.tokens.mu.Lock()
	data := s.tokens.http[urlPath]
	s.tokens.mu.Unlock()
	if data != nil || !s.shared() || !isToken(strings.TrimPrefix(urlPath, http01Path)) {
		return data
	}
	data, err := s.get(ctx, httpTokenCacheKey(urlPath))
	if err != nil {
		return nil
	}
	return data
}

// isToken says whether a string could be a token, RFC 8555 section 8.1: 128 bits and more
// in base64url. All else does not get as far as the cache.
func isToken(s string) bool {
	const least, most = 22, 256
	if len(s) < least || len(s) > most {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// HTTPHandler answers HTTP-01 challenges of the [ACME] sources, on whatever port and behind
// whatever proxy leads the CA's port 80 to it. From the first call on that kind of
// challenge is used where TLS-ALPN-01 fails. All other requests go to fallback; nil
// redirects GET and HEAD to https, and refuses the others.
func (m *Manager) HTTPHandler(fallback http.Handler) http.Handler {
	if fallback == nil {
		fallback = http.HandlerFunc(redirectToHTTPS)
	}
	for _, s := range m.acme {
		s.http01.Add(1)
	}
	return m.answerHTTP01(fallback)
}

func (m *Manager) answerHTTP01(fallback http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, http01Path) {
			fallback.ServeHTTP(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), cacheTimeout)
		defer cancel()
		for _, s := range m.acme {
			if data := s.httpToken(ctx, r.URL.Path); data != nil {
				w.Header().Set("Content-Type", "text/plain")
				w.Write(data)
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
