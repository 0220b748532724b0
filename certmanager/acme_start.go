package certmanager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ergotls/ergotls/internal/clock"
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
		if cert := s.load(limited, n); cert != nil {
			s.adopt(n, cert)
		} else {
			missing = append(missing, n)
		}
	}
	s.giveTimeToListen(missing)
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

// giveTimeToListen puts off what the program's own server has to answer: all that New does not
// wait for.
func (s *acmeState) giveTimeToListen(missing []*acmeName) {
	soonest := clock.Now().Add(backgroundDelay)
	for _, domain := range s.o.Domains {
		n := s.names[domain]
		if waits := slices.Contains(missing, n) && !s.o.Background; !waits && n.due.Before(soonest) {
			n.due = soonest
		}
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
	stopTLS, err := s.doors.enter("tls "+s.o.Listen, func() (func(), error) { return s.m.listenTLS(s.o.Listen) })
	if err != nil {
		return nil, fmt.Errorf("ACME.Listen: nothing could answer the CA before New returns: %w; if the program's own server is to answer, set Background", err)
	}
	if s.o.ListenHTTP == "" {
		return stopTLS, nil
	}
	stopHTTP, err := s.doors.enter("http "+s.o.ListenHTTP, func() (func(), error) { return s.m.listenHTTP(s.o.ListenHTTP) })
	if err != nil {
		stopTLS()
		return nil, fmt.Errorf("ACME.ListenHTTP: %w", err)
	}
	s.http01.Add(1)
	return func() {
		s.http01.Add(-1)
		stopTLS()
		stopHTTP()
	}, nil
}

// acmeDoors are the listeners that are open while New waits. The sources of a Manager share
// them: every CA comes to the same port.
type acmeDoors struct {
	mu    sync.Mutex // guards doors
	doors map[string]*acmeDoor
}

type acmeDoor struct {
	users int
	close func()
}

// enter opens a listener, unless another source has. The last to leave closes it.
func (d *acmeDoors) enter(key string, open func() (stop func(), err error)) (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	door := d.doors[key]
	if door == nil {
		door = &acmeDoor{}
		if door.close, err = open(); err != nil {
			return nil, err
		}
		d.doors[key] = door
	}
	door.users++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if door.users--; door.users == 0 {
			delete(d.doors, key)
			door.close()
		}
	}, nil
}

// listenTLS answers TLS-ALPN-01, and nothing else, until stop.
func (m *Manager) listenTLS(addr string) (stop func(), err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if config := m.challengeConfig(hello, nil); config != nil {
			return config, nil
		}
		return nil, ErrNoCertificate
	}}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := listener.Accept()
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
				tls.Server(conn, config).HandshakeContext(context.WithValue(limited, challengeKey{}, true))
			})
		}
	})
	return func() {
		listener.Close()
		cancel()
		done.Wait()
	}, nil
}

// listenHTTP answers HTTP-01, and nothing else, until stop.
func (m *Manager) listenHTTP(addr string) (stop func(), err error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler: m.answerHTTP01(http.NotFoundHandler()), ReadTimeout: challengeTimeout, WriteTimeout: challengeTimeout,
		ErrorLog: log.New(io.Discard, "", 0), // what strangers send is no news
	}
	var done sync.WaitGroup
	done.Go(func() { server.Serve(listener) })
	return func() {
		server.Close()
		done.Wait()
	}, nil
}
