package meta

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ergotls/ergotls/internal/conninfo"
)

// challengeProtocol is negotiated by a CA that validates a name (RFC 8737). The completed handshake
// answers the challenge.
const challengeProtocol = "acme-tls/1"

// errNothingSent ends a connection whose peer has sent neither a ClientHello nor a PROXY header,
// such as the health check of a load balancer or a port scan.
var errNothingSent = errors.New("the peer sent nothing, or left before its ClientHello")

// errChallenge ends a connection whose handshake answered a challenge.
var errChallenge = errors.New("validated by a CA")

// establish performs all steps before Connect is sent. It returns false if the connection ended
// first.
func (c *tcpConnection) establish() bool {
	deadline := time.Now().Add(c.opt.HandshakeTimeout)
	if err := c.admit(deadline); err != nil {
		c.refused("admission", err)
		return false
	}
	var state *tls.ConnectionState
	if c.opt.CertManager != nil && !c.opt.StartTLS {
		var err error
		if state, err = c.handshake(deadline); err == errChallenge {
			c.server.count(func(stats *ServerStats) { stats.Challenges++; c.summed = true })
			c.end(ErrTerminated, nil)
			return false
		} else if err != nil {
			c.refused("handshake", err)
			return false
		}
	}
	if c.given != nil {
		var err error
		if state, err = c.givenHandshake(deadline); err != nil {
			c.refused("handshake", err)
			return false
		}
	}
	c.touch()
	c.startLifetime()

	connect := c.connect(state)
	if c.server != nil && c.server.opt.Route != nil {
		if err := protect("Route", func() error {
			if worker := c.server.opt.Route(connect.Peer); worker != "" {
				c.to = worker
			}
			return nil
		}); err != nil {
			c.refused("routing", err)
			return false
		}
	}
	if c.server != nil && c.server.actors {
		if err := c.startActor(deadline); err != nil {
			c.refused("start of the actor", err)
			return false
		}
	}
	if err := c.findOwner(); err != nil {
		c.refused("connection", err)
		return false
	}
	c.writer.setOut(c.stream)
	if ended := c.view().reason; ended != nil { // the manager has evicted it, or it was terminated
		if c.server != nil && ended.Reason == ErrEvicted {
			c.server.refused(c, "authorization", cmp.Or(ended.Cause, ended.Reason))
		}
		return false
	}
	c.advance(open)
	if c.onConnect != nil {
		c.onConnect() // before the owner can answer
	}
	c.setConnectSent(true) // before the owner looks for the connection
	if !c.send(connect) {
		c.setConnectSent(false)
		if c.server != nil {
			c.server.refused(c, "connection", c.view().reason) // no owner to tell
		}
		return false
	}
	if c.debugs() {
		c.log().Debug("connection with %s established", connect.Peer)
	}
	return true
}

func (c *tcpConnection) setConnectSent(sent bool) {
	c.mu.Lock()
	c.connectSent = sent
	c.mu.Unlock()
}

// admit reads the PROXY header of a source that sends one, and counts its connection.
func (c *tcpConnection) admit(deadline time.Time) error {
	if c.server == nil {
		return nil
	}
	if c.foreign {
		if err := c.findAddr(); err != nil {
			return err
		}
	}
	if !c.server.behindProxy(c.sock) {
		if c.foreign { // else the accept loop has called admit
			if err := c.server.admit(c); err != nil {
				return err
			}
		}
		if len(c.server.opt.ProxyFrom) > 0 && c.given == nil && (c.opt.CertManager == nil || c.opt.StartTLS) {
			return c.sock.awaitStart()
		}
		return nil
	}
	c.mu.Lock()
	if c.reason != nil {
		c.mu.Unlock()
		return context.Canceled
	}
	c.sock.SetReadDeadline(deadline) // with the lock held, so that an interrupt comes after it
	c.mu.Unlock()
	addr, proxy, err := readProxyHeader(c.sock)
	c.sock.SetReadDeadline(time.Time{})
	if err != nil {
		return err
	}
	c.sock.remote.Store(&addr)
	c.proxy = proxy
	return c.server.admit(c)
}

// handshake performs the TLS handshake and, if the manager agrees, makes the TLS stream that of the
// connection. At deadline crypto/tls closes the socket.
func (c *tcpConnection) handshake(deadline time.Time) (*tls.ConnectionState, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if err := c.cancelBy(cancel); err != nil {
		return nil, err
	}
	defer c.cancelBy(nil)
	started := time.Now()
	h := &tlsHandshake{ctx: ctx, id: c.self.(fmt.Stringer), began: len(c.sock.pending) > 0}
	if c.server != nil {
		h.limiter = &c.server.handshakes
	}
	c.sock.handshake = h
	defer func() { c.sock.handshake, h.ctx = nil, nil }() // callbacks that refer to h live as long as the TLS connection
	var conn *tls.Conn
	if c.server != nil {
		conn = tls.Server(c.sock, c.server.tls)
	} else {
		conn = tls.Client(c.sock, h.config(c.clientTLS))
	}
	var track tracking
	err := protect("handshake", func() error {
		track = c.tracking()
		return c.runHandshake(ctx, conn)
	})
	h.leave()
	if h.panicked != nil {
		err = h.panicked
	}
	state := conn.ConnectionState()
	if c.server != nil && state.HandshakeComplete && state.NegotiatedProtocol == challengeProtocol {
		return nil, errChallenge // the handshake was the answer; the peer has no certificate
	}
	if c.server != nil && !c.opt.StartTLS && !h.hello && (left(err) || !h.began && timeout(err)) {
		return nil, fmt.Errorf("%w: %w", errNothingSent, err)
	}
	if err != nil {
		c.shown = shown(err, state.PeerCertificates)
		return nil, notTLS(err)
	}
	c.stats.handshake = time.Since(started)
	c.stats.tls.Store(conn)
	if c.server != nil {
		c.server.count(func(stats *ServerStats) { stats.handshake(state.Version, state.DidResume, c.stats.handshake) })
	}
	c.stream = conn
	if track != nil {
		err = protect("CertManager.Track", func() error {
			c.release = track(&state, c.trackedAddr(), func(reason error) { c.end(ErrEvicted, reason) })
			return nil
		})
	}
	return &state, err
}

// runHandshake performs the handshake, through the manager's ServerHandshake if it has one.
func (c *tcpConnection) runHandshake(ctx context.Context, conn *tls.Conn) error {
	if manager, ok := c.opt.CertManager.(serverHandshaker); ok && c.server != nil {
		return manager.ServerHandshake(ctx, conn)
	}
	return conn.HandshakeContext(ctx)
}

// cancelBy sets the function that the end of the connection calls; nil removes it. It fails if the
// connection has ended.
func (c *tcpConnection) cancelBy(cancel context.CancelFunc) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel = cancel
	if c.reason != nil {
		return context.Canceled
	}
	if cancel != nil {
		c.sock.SetReadDeadline(time.Time{}) // an earlier interrupt of the read loop must not end the handshake
	}
	return nil
}

type tracking func(state *tls.ConnectionState, remote net.Addr, evict func(reason error)) (release func())

// tracking returns the function that tells the manager about the connection after its handshake,
// nil if the manager has none.
func (c *tcpConnection) tracking() tracking {
	if c.opt.InsecureSkipVerify {
		return nil
	}
	switch manager := c.opt.CertManager.(type) {
	case sidedTracker:
		if c.server != nil {
			return manager.Accepting()
		}
		return manager.Dialing()
	case tracker:
		return manager.Track
	}
	return nil
}

// trackedAddr returns the address that a manager gets with a connection. A sidedTracker also gets
// the connection's ID with it.
func (c *tcpConnection) trackedAddr() net.Addr {
	if _, ok := c.opt.CertManager.(sidedTracker); ok {
		return conninfo.RemoteAddr(c.sock)
	}
	return c.sock.RemoteAddr()
}

// shown returns the leaf of a peer whose handshake failed, nil if the peer presented none.
func shown(err error, certs []*x509.Certificate) *x509.Certificate {
	if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		certs = refused.UnverifiedCertificates
	}
	if len(certs) == 0 {
		return nil
	}
	return certs[0]
}

// notTLS adds the first bytes of a peer that does not speak TLS to the error: they may show HTTP,
// for example.
func notTLS(err error) error {
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok && header.Conn != nil { // set only for a first record
		return fmt.Errorf("the peer does not speak TLS, it began with %q: %w", header.RecordHeader[:], err)
	}
	return err
}

// refused ends a connection before its MessageTCPConnect. Only the owner of an outgoing connection
// is told.
func (c *tcpConnection) refused(stage string, err error) {
	if c.view().reason != nil {
		return // err only follows from that end
	}
	reason := ErrHandshake
	switch {
	case isAlert(err):
		reason = ErrRefused
	case errors.Is(err, ErrOwnerGone):
		reason = ErrOwnerGone
	case c.stats.tls.Load() != nil:
		reason = ErrTerminated // the handshake was complete: the peer gets close_notify
	}
	c.end(reason, err)
	if c.server != nil {
		c.server.refused(c, stage, err)
	}
}

// isAlert reports whether the error is an alert from the peer.
func isAlert(err error) bool { return isOp(err, "remote error") }

func isOp(err error, name string) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == name
}
