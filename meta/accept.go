package meta

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Start implements gen.MetaBehavior: it accepts connections until the listener is closed.
func (s *tcpServer) Start() error {
	defer close(s.stopped)
	log := s.process.Log()
	log.Info("listening on %s (TLS: %s)", listenerAddrs(s.listener), s.stats.TLS)
	if manager, ok := s.opt.CertManager.(doner); ok {
		go s.watchManager(manager)
	}
	if s.opt.InsecureSkipVerify {
		log.Warning("InsecureSkipVerify is set: client certificates are not verified on %s", s.listener.Addr())
	}
	for _, name := range s.opt.ProcessPool {
		if s.opt.Node == nil {
			break // names cannot be looked up
		}
		if _, err := lookUp(s.opt.Node, name); err != nil {
			log.Warning("ProcessPool: no process has the name %s; its connections will end until one has", name)
		}
	}
	var backoff time.Duration
	s.takeSlot()
	for s.awaitRoom() && !isClosed(s.closing) {
		c, err := s.accept()
		if err == nil {
			backoff = 0
			if !s.awaitRoom() { // MessageTCPLimits may have lowered the limit
				c.sock.Close()
				break
			}
			s.serve(c) // c now holds the slot
			s.takeSlot()
			continue
		}
		class := classifyAccept(err)
		if class == acceptClosed {
			s.close()
			return nil
		}
		s.count(func(stats *ServerStats) { stats.AcceptErrors++ })
		backoff = nextBackoff(backoff)
		s.logLimit.Do(func() {
			log.Error("accept on %s failed: %s (%s); next try in %s", s.listener.Addr(), err, class, backoff)
		})
		select {
		case <-time.After(backoff):
		case <-s.closing:
		}
	}
	return nil
}

// accept waits for a connection. A panic of a given Listener, its connections or a BufferPool is
// returned as an error, after which the accept loop backs off.
func (s *tcpServer) accept() (c *tcpConnection, err error) {
	var conn net.Conn
	err = protect("Listener.Accept", func() (err error) { conn, err = s.listener.Accept(); return err })
	if err != nil {
		return nil, err
	}
	err = protect("a method of the accepted connection, or BufferPool.New,", func() (err error) { c, err = s.accepted(conn); return err })
	if err != nil && conn != nil {
		_ = protect("Close", conn.Close)
	}
	return c, err
}

// accepted makes the meta process of an accepted connection.
func (s *tcpServer) accepted(conn net.Conn) (*tcpConnection, error) {
	if conn == nil {
		return nil, errors.New("Listener.Accept returned neither a connection nor an error")
	}
	sock := newSocket(conn)
	if s.opt.Listener != nil {
		sock.unblock()
	}
	s.connection.setTimeouts(conn)
	to := s.parent
	if len(s.opt.ProcessPool) > 0 {
		to = s.opt.ProcessPool[s.next]
		s.next = (s.next + 1) % len(s.opt.ProcessPool)
	}
	c := newConnection(s.connection, s, sock, to)
	if s.opt.Listener != nil {
		c.given, c.foreign = givenTLS(conn), sock.raw == nil
	}
	return c, nil
}

// serve spawns the meta process of an accepted connection. It does not block.
func (s *tcpServer) serve(c *tcpConnection) {
	s.mu.Lock()
	s.open[c] = struct{}{}
	s.stats.Accepted++
	s.alarmLocked()
	s.mu.Unlock()
	if c.given != nil && s.tls != nil {
		s.logLimit.Do(func() { s.process.Log().Error("connection from %s dropped: %s", c.sock.RemoteAddr(), errTwiceTLS) })
		c.Terminate(errTwiceTLS)
		return
	}
	if !c.foreign && !s.behindProxy(c.sock) {
		if err := s.admit(c); err != nil {
			s.refused(c, "admission", err)
			c.Terminate(err)
			return
		}
	}
	if _, err := s.process.Spawn(c, s.opt.ConnectionMeta); err != nil {
		s.logLimit.Do(func() { s.process.Log().Error("connection from %s dropped: %s", c.sock.RemoteAddr(), err) })
		c.Terminate(err)
	}
}

// behindProxy reports whether a connection comes from a source whose connections start with a PROXY
// header.
func (s *tcpServer) behindProxy(sock *socket) bool {
	return contains(s.opt.ProxyFrom, sock.RemoteAddr())
}

// admit counts c for its address. The error names the option whose limit is reached.
func (s *tcpServer) admit(c *tcpConnection) error {
	addr := limitAddr(c.sock.RemoteAddr())
	s.mu.Lock()
	option := s.addresses.admit(addr, s.max)
	s.mu.Unlock()
	if option != "" {
		return fmt.Errorf("%w %s", errOverLimit, option)
	}
	c.counted = true
	return nil
}

// acceptClass is the meaning of an Accept error for the accept loop.
type acceptClass string

const (
	acceptClosed    acceptClass = "the listener is closed"
	acceptExhausted acceptClass = "out of descriptors or memory; raise the limit (ulimit -n) or lower MaxConnections"
	acceptPeer      acceptClass = "the peer was gone before it was accepted"
	acceptUnknown   acceptClass = "unexpected"
)

// classifyAccept classifies the errors listed in accept(2). Only acceptClosed ends the accept loop.
// After any other error, known or not, the loop retries, so that a temporary error does not
// silently stop the server.
func classifyAccept(err error) acceptClass {
	switch {
	case is(net.ErrClosed)(err):
		return acceptClosed
	case is(syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM)(err):
		return acceptExhausted
	case is(syscall.ECONNABORTED, syscall.ECONNRESET)(err):
		return acceptPeer
	default:
		return acceptUnknown
	}
}

// nextBackoff returns the wait after a failed accept: 5 ms, doubled up to 1 s, as net/http does.
func nextBackoff(last time.Duration) time.Duration {
	return min(max(2*last, 5*time.Millisecond), time.Second)
}
