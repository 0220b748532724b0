package certmanager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"sync"
	"time"
)

const (
	// backgroundDelay gives the program's server time to listen before the CA visits it.
	backgroundDelay = time.Second

	// challengeTimeout bounds a connection to a listener that is open while New waits.
	challengeTimeout = 10 * time.Second
)

// start takes the Domains from the cache, and unless they are left to the background obtains
// those that are missing. It sets startErr.
func (s *acmeState) start(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, s.o.StartTimeout)
	defer cancel()
	var missing []*acmeName
	for _, domain := range s.o.Domains {
		n := s.names[domain]
		if cert := s.load(limited, n.name); cert != nil {
			s.adopt(n, cert)
		} else {
			missing = append(missing, n)
		}
	}
	if s.o.Background {
		for _, n := range missing {
			n.due = time.Now().Add(backgroundDelay)
		}
	}
	if len(missing) > 0 && !s.o.Background {
		stop, err := s.serve()
		if err != nil {
			s.startErr = err
			return
		}
		defer stop()
	}
	for _, domain := range s.o.Domains {
		s.tending.Go(func() { s.tend(ctx, s.names[domain]) })
	}
	if !s.o.Background {
		s.startErr = s.waitFor(limited, missing)
	}
}

// waitFor waits until each name has a certificate or is refused by the CA, or until ctx ends
// with StartTimeout.
func (s *acmeState) waitFor(ctx context.Context, names []*acmeName) error {
	var errs []error
	for _, n := range names {
		if err := s.waitForOne(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("ACME: %s: %w", n.name, err))
		}
	}
	return errors.Join(errs...)
}

func (s *acmeState) waitForOne(ctx context.Context, n *acmeName) error {
	for {
		s.mu.Lock()
		cert, err, changed := n.cert, n.err, n.changed
		s.mu.Unlock()
		switch {
		case cert != nil:
			return nil
		case isInvalid(err):
			return err
		case ctx.Err() != nil:
			return errors.Join(err, fmt.Errorf("no certificate within StartTimeout, %v", s.o.StartTimeout))
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// serve answers challenges until stop: while New waits, no server of the program runs.
func (s *acmeState) serve() (stop func(), err error) {
	listener, err := net.Listen("tcp", s.o.Listen)
	if err != nil {
		return nil, fmt.Errorf("ACME.Listen: nothing could answer the CA before New returns: %w; if the program's own server is to answer, set Background", err)
	}
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if config := s.m.challengeConfig(hello, &snapshot{}); config != nil {
			return config, nil
		}
		return nil, ErrNoCertificate
	}}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(challengeTimeout))
				tls.Server(conn, config).Handshake()
			})
		}
	})
	stopHTTP := func() {}
	if s.o.ListenHTTP != "" {
		if stopHTTP, err = s.serveHTTP(&done); err != nil {
			listener.Close()
			done.Wait()
			return nil, err
		}
	}
	return func() {
		listener.Close()
		stopHTTP()
		done.Wait()
	}, nil
}

func (s *acmeState) serveHTTP(done *sync.WaitGroup) (stop func(), err error) {
	listener, err := net.Listen("tcp", s.o.ListenHTTP)
	if err != nil {
		return nil, fmt.Errorf("ACME.ListenHTTP: %w", err)
	}
	server := &http.Server{
		Handler: s.m.answerHTTP01(http.NotFoundHandler()), ReadTimeout: challengeTimeout, WriteTimeout: challengeTimeout,
	}
	s.http01.Add(1)
	done.Go(func() { server.Serve(listener) })
	return func() {
		s.http01.Add(-1)
		server.Close()
	}, nil
}
