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

// listeners are open while New waits. The sources of a program share them: every CA comes to the
// same port.
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

// join opens a listener, unless another source has. The last to leave closes it.
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
		l.done.Go(func() {
			if kind == "tls" {
				l.server.ServeTLS(socket, "", "")
			} else {
				l.server.Serve(socket)
			}
		})
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
