package certmanager

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/ergotls/ergotls/internal/conninfo"
)

// Goroutines of a listener of NewListener:
//   - accept: one, ended by Close.
//   - one for each connection, from its acceptance until its handshake is complete and Accept
//     has returned it; ended by Close too.

// listenerTimeout limits a handshake.
const listenerTimeout = 10 * time.Second

// maxPending limits the connections that Accept has not returned. It is high because clients that
// fill it with incomplete handshakes make all others wait.
const maxPending = 10_000

// listener performs the handshakes of the connections that it accepts.
type listener struct {
	net.Listener
	m       *Manager
	config  *tls.Config
	results chan result[net.Conn]
	pending chan struct{}   // an entry for each connection that Accept has not returned
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// NewListener returns a listener of TLS connections for any server. Its Accept returns a *tls.Conn
// whose handshake with [Manager.ServerTLS] is complete, so a refused client is never accepted. It
// answers challenges of a CA (TLS-ALPN-01) and closes their connections. The Manager tracks the
// connections, as with [Manager.Track], and closes those whose client is no longer accepted.
//
//	server.Serve(m.NewListener(listener, "h2", "http/1.1"))
//
// nextProtos are the server's protocols (ALPN), in order of preference. For "h2" leave TLSConfig of
// an [http.Server] nil: with a config that does not list "h2", such as that of ServerTLS, it does
// not speak the HTTP/2 that was negotiated here. A handshake may take 10 seconds. At most 10,000
// connections are in their handshake or wait for Accept; beyond that inner.Accept is not called. To
// limit the number of connections, wrap inner. Close closes inner and the connections that Accept
// has not returned.
func (m *Manager) NewListener(inner net.Listener, nextProtos ...string) net.Listener {
	l := &listener{Listener: inner, m: m, config: m.ServerTLS(), results: make(chan result[net.Conn]), pending: make(chan struct{}, maxPending)}
	l.config.NextProtos = nextProtos
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.done.Go(l.accept)
	return l
}

func (l *listener) accept() {
	for {
		select {
		case l.pending <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		conn, err := l.acceptOne()
		if err == nil {
			l.done.Go(func() { l.serve(conn) })
			continue
		}
		<-l.pending
		if !l.give(result[net.Conn]{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// acceptOne calls Accept of inner, which belongs to the program and may panic.
func (l *listener) acceptOne() (conn net.Conn, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("certmanager: Accept of the inner listener panicked: %v", v)
		}
	}()
	if conn, err = l.Listener.Accept(); conn == nil && err == nil {
		err = errors.New("certmanager: Accept of the inner listener returned neither a connection nor an error")
	}
	return conn, err
}

// give passes a result to Accept. It returns false if the listener is closed first.
func (l *listener) give(r result[net.Conn]) bool {
	select {
	case l.results <- r:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// serve performs the handshake of a connection and passes it to Accept, or closes it.
func (l *listener) serve(raw net.Conn) {
	defer func() { <-l.pending }()
	given := false
	l.m.events.safely("a handshake below NewListener", func() { given = l.handshake(raw) })
	if !given {
		l.m.events.safely("Close of a connection below NewListener", func() { raw.Close() })
	}
}

func (l *listener) handshake(raw net.Conn) (given bool) {
	tracked := &trackedConn{Conn: raw}
	conn := tls.Server(tracked, l.config)
	ctx, cancel := context.WithTimeout(l.ctx, listenerTimeout)
	defer cancel()
	track := l.m.Accepting()
	if err := l.m.ServerHandshake(ctx, conn); err != nil {
		return false
	}
	state := conn.ConnectionState()
	tracked.release = track(&state, conninfo.RemoteAddr(raw), func(error) { raw.Close() })
	if given = l.give(result[net.Conn]{value: conn}); !given {
		tracked.Close()
	}
	return given
}

// Accept implements net.Listener. It returns errors of the inner listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case r := <-l.results:
		return r.value, r.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.done.Wait()
	return err
}

// trackedConn is a connection below TLS that the Manager tracks until it is closed.
type trackedConn struct {
	net.Conn
	release func() // nil during the handshake
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	if c.release != nil {
		c.release()
	}
	return c.Conn.Close()
}
