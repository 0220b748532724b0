package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
)

// challengeTimeout bounds a connection to a listener that is open while New waits.
const challengeTimeout = 10 * time.Second

// listen answers challenges until stop: while New waits, no server of the program runs.
func (s *state) listen() (stop func(), err error) {
	stopTLS, err := listeners.join("tls "+s.o.Listen, s, func(l *listener) (func(), error) { return l.serveTLS(s.o.Listen) })
	if err != nil {
		return nil, fmt.Errorf("acme.Source.Listen: nothing could answer the CA before New returns: %w; if the program's own server is to answer, set Background", err)
	}
	if s.o.ListenHTTP == "" {
		return stopTLS, nil
	}
	stopHTTP, err := listeners.join("http "+s.o.ListenHTTP, s, func(l *listener) (func(), error) { return l.serveHTTP(s.o.ListenHTTP) })
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
var listeners = &listenerSet{open: make(map[string]*listener)}

type listenerSet struct {
	mu   sync.Mutex // guards open
	open map[string]*listener
}

type listener struct {
	mu    sync.Mutex // guards users
	users map[*state]bool
	close func()
}

// join opens a listener, unless another source has. The last to leave closes it.
func (ls *listenerSet) join(key string, s *state, open func(*listener) (stop func(), err error)) (leave func(), err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.open[key]
	if l == nil {
		l = &listener{users: make(map[*state]bool)}
		if l.close, err = open(l); err != nil {
			return nil, err
		}
		ls.open[key] = l
	}
	l.mu.Lock()
	l.users[s] = true
	l.mu.Unlock()
	return func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		l.mu.Lock()
		delete(l.users, s)
		last := len(l.users) == 0
		l.mu.Unlock()
		if last {
			delete(ls.open, key)
			l.close()
		}
	}, nil
}

func (l *listener) sources() []*state {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*state
	for s := range l.users {
		all = append(all, s)
	}
	return all
}

// serveTLS answers TLS-ALPN-01, and nothing else, until stop.
func (l *listener) serveTLS(addr string) (stop func(), err error) {
	socket, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
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
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := socket.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // too many files, or the client has gone
				sleep(ctx, 100*time.Millisecond)
				continue
			}
			done.Go(func() {
				defer conn.Close()
				limited, cancel := context.WithTimeout(ctx, challengeTimeout)
				defer cancel()
				_ = tls.Server(conn, config).HandshakeContext(limited)
			})
		}
	})
	return func() {
		socket.Close()
		cancel()
		done.Wait()
	}, nil
}

// serveHTTP answers HTTP-01, and nothing else, until stop.
func (l *listener) serveHTTP(addr string) (stop func(), err error) {
	socket, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		ReadTimeout: challengeTimeout, WriteTimeout: challengeTimeout,
		ErrorLog: log.New(io.Discard, "", 0), // anyone can connect
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, s := range l.sources() {
				if body, ok := s.answerHTTP(r.Host, r.URL.Path); ok && r.URL.Path != "" {
					io.WriteString(w, body)
					return
				}
			}
			http.NotFound(w, r)
		}),
	}
	var done sync.WaitGroup
	done.Go(func() { server.Serve(socket) })
	return func() {
		server.Close()
		done.Wait()
	}, nil
}
