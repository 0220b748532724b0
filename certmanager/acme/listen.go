package acme

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
)

// challengeTimeout bounds a connection to a listener that is open while New waits.
const challengeTimeout = 10 * time.Second

// listen answers challenges until stop: while New waits, no server of the program runs.
func (s *state) listen() (stop func(), err error) {
	stopTLS, err := join("tls", s.o.Listen, s, serveTLS)
	if err != nil {
		return nil, fmt.Errorf("acme.Source.Listen: nothing could answer the CA before New returns: %w; if the program's own server is to answer, set Background", err)
	}
	if s.o.ListenHTTP == "" {
		return stopTLS, nil
	}
	stopHTTP, err := join("http", s.o.ListenHTTP, s, serveHTTP)
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

// listeners are open while New waits. The sources of a program share them: every CA comes to the
// same port.
var listeners = struct {
	sync.Mutex
	open map[string]*listener
}{open: make(map[string]*listener)}

type listener struct {
	mu    sync.Mutex // guards users
	users map[*state]bool
	close func()
}

// join opens a listener, unless another source has. The last to leave closes it.
func join(kind, addr string, s *state, serve func(*listener, *http.Server, net.Listener)) (leave func(), err error) {
	listeners.Lock()
	defer listeners.Unlock()
	key := kind + " " + addr
	l := listeners.open[key]
	if l == nil {
		socket, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, err
		}
		l = &listener{users: make(map[*state]bool)}
		server := &http.Server{
			ReadTimeout: challengeTimeout, WriteTimeout: challengeTimeout, Handler: http.NotFoundHandler(),
			ErrorLog: log.New(io.Discard, "", 0), // anyone can connect
		}
		listeners.open[key] = l
		var done sync.WaitGroup
		done.Go(func() { serve(l, server, socket) })
		l.close = func() {
			server.Close()
			done.Wait()
		}
	}
	l.use(s, true)
	return func() {
		listeners.Lock()
		defer listeners.Unlock()
		if l.use(s, false) == 0 {
			delete(listeners.open, key)
			l.close()
		}
	}, nil
}

// use says whether a source answers, and returns how many do.
func (l *listener) use(s *state, answers bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users[s] = true; !answers {
		delete(l.users, s)
	}
	return len(l.users)
}

func (l *listener) sources() []*state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.users))
}

// serveTLS answers TLS-ALPN-01, and nothing else, until the server is closed.
func serveTLS(l *listener, server *http.Server, socket net.Listener) {
	server.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{acmez.ACMETLS1Protocol}, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != acmez.ACMETLS1Protocol { // RFC 8737 section 3
				return nil, errNoChallenge
			}
			for _, s := range l.sources() {
				if cert, err := s.answerTLS(hello); err == nil {
					return cert, nil
				}
			}
			return nil, errNoChallenge
		},
	}
	// The connection of a challenge ends with its handshake.
	server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){acmez.ACMETLS1Protocol: func(*http.Server, *tls.Conn, http.Handler) {}}
	server.ServeTLS(socket, "", "")
}

// serveHTTP answers HTTP-01, and nothing else, until the server is closed.
func serveHTTP(l *listener, server *http.Server, socket net.Listener) {
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, http01Path) {
			for _, s := range l.sources() {
				if body, ok := s.answerHTTP(r.Host, r.URL.Path); ok {
					io.WriteString(w, body)
					return
				}
			}
		}
		http.NotFound(w, r)
	})
	server.Serve(socket)
}
