package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
)

// challengeTimeout limits a connection to a listener that is open while New waits.
const challengeTimeout = 10 * time.Second

// listen answers challenges until stop is called: while New waits, no server of the program runs.
func (s *state) listen() (stop func(), err error) {
	stopTLS, err := join("tls", s.o.Listen, s)
	if err != nil {
		return nil, fmt.Errorf("acme.Source.Listen: nothing could answer the CA before New returns: %w; if the program's own server is to answer, set Background", err)
	}
	if s.o.ListenHTTP == "" {
		return stopTLS, nil
	}
	stopHTTP, err := join("http", s.o.ListenHTTP, s)
	if err != nil {
		stopTLS()
		return nil, fmt.Errorf("acme.Source.ListenHTTP: %w", err)
	}
	s.http01.Add(1)
	return func() {
		s.http01.Add(-1)
		stopTLS()
		stopHTTP()
	}, nil
}

// listeners are open while New waits. The sources of a program share them, because every CA
// connects to the same port.
var listeners = struct {
	sync.Mutex
	open map[string]*listener
}{open: make(map[string]*listener)}

// listener answers challenges, and nothing else.
type listener struct {
	server *http.Server
	done   sync.WaitGroup
	users  map[*state]bool // guarded by listeners
}

// join opens a listener, or shares that of another source. The last source to leave closes it.
func join(kind, addr string, s *state) (leave func(), err error) {
	listeners.Lock()
	defer listeners.Unlock()
	key := kind + " " + addr
	l := listeners.open[key]
	if l == nil {
		socket, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		l = newListener()
		if kind == "tls" {
			socket = tls.NewListener(socket, l.server.TLSConfig)
		}
		l.done.Go(func() { l.server.Serve(socket) })
		listeners.open[key] = l
	}
	l.users[s] = true
	return func() {
		listeners.Lock()
		defer listeners.Unlock()
		if delete(l.users, s); len(l.users) == 0 {
			delete(listeners.open, key)
			l.server.Close()
			l.done.Wait()
		}
	}, nil
}

func newListener() *listener {
	l := &listener{users: make(map[*state]bool)}
	l.server = &http.Server{
		ReadTimeout: challengeTimeout, WriteTimeout: challengeTimeout, Handler: http.HandlerFunc(l.answerHTTP),
		ErrorLog: log.New(io.Discard, "", 0), // anyone can connect
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, SessionTicketsDisabled: true,
			GetCertificate: l.answerTLS,
		},
		// The connection of a challenge ends with its handshake.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){acmez.ACMETLS1Protocol: func(*http.Server, *tls.Conn, http.Handler) {}},
	}
	return l
}

func (l *listener) sources() []*state {
	listeners.Lock()
	defer listeners.Unlock()
	return slices.Collect(maps.Keys(l.users))
}

// answerTLS implements tls.Config.GetCertificate.
func (l *listener) answerTLS(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol}) { // RFC 8737 section 3
		for _, s := range l.sources() {
			if cert, err := s.answerTLS(hello); err == nil {
				return cert, nil
			}
		}
	}
	return nil, errNoChallenge
}

// answerHTTP implements http.HandlerFunc.
func (l *listener) answerHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, http01Path) {
		for _, s := range l.sources() {
			if body, ok := s.answerHTTP(r.Host, r.URL.Path); ok {
				io.WriteString(w, body)
				return
			}
		}
	}
	http.NotFound(w, r)
}

const http01Path = "/.well-known/acme-challenge/"

var errNoChallenge = errors.New("no such challenge is open")

// answer returns the answer to a challenge of this machine, or of another machine if other returns
// true.
func (s *state) answer(ctx context.Context, key string, other func() bool) ([]byte, error) {
	if data, ok := s.answers.Load(key); ok {
		return data.([]byte), nil
	}
	if s.shared() && other() {
		if data, err := s.get(ctx, key); err == nil {
			return data, nil
		}
	}
	return nil, errNoChallenge
}

// answerTLS returns the answer to a TLS-ALPN-01 challenge.
func (s *state) answerTLS(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, err := normalName(hello.ServerName)
	if err != nil {
		return nil, err
	}
	ctx := contextOf(hello)
	data, err := s.answer(ctx, tokenCertCacheKey(name), func() bool { return s.owns(ctx, name) })
	if err != nil {
		return nil, err
	}
	return decodeCached(data)
}

// answerHTTP returns the answer to an HTTP-01 challenge. A call with an empty path means that such
// challenges are answered from now on.
func (s *state) answerHTTP(_, urlPath string) (body string, ok bool) {
	if urlPath == "" {
		s.http01.Add(1)
		return "", false
	}
	last, ok := strings.CutPrefix(urlPath, http01Path)
	if !ok {
		return "", false
	}
	data, err := s.answer(s.ctx, httpTokenCacheKey(urlPath), func() bool { return token.MatchString(last) })
	return string(data), err == nil
}

// token matches valid tokens: at least 128 bits in base64url (RFC 8555 section 8.1). Nothing else
// is looked up in the cache.
var token = regexp.MustCompile(`^[A-Za-z0-9_-]{22,256}$`)

// contextOf returns the context of a handshake. A hello that crypto/tls did not make has none.
func contextOf(hello *tls.ClientHelloInfo) context.Context {
	if ctx := hello.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
