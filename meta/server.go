package meta

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"ergo.services/ergo/gen"
	"golang.org/x/time/rate"
)

// The goroutines of a server:
//
//   - Start's, run by the engine: the accept loop. It ends when the listener is closed.
//   - the engine's message goroutine, which runs while there are messages.
//   - watchManager, if the CertManager has Done. It ends with the listener.
//   - those of listeners, if the server listens on several addresses.
//   - one for each drain, until all connections have ended.

var (
	errOverLimit = errors.New("over the limit")
	errTwiceTLS  = errors.New("the connections of Listener are TLS connections already; leave CertManager unset, or pass the TCP listener")
)

// tcpServer is the meta process of a listening socket. Its connections are meta processes of their
// own, under the same parent, and outlive it.
type tcpServer struct {
	behavior

	// Set by CreateTCPServer, and not changed after it.
	opt        TCPServerOptions      // the current limits are in accepting
	connection *TCPConnectionOptions // of each accepted connection
	listener   net.Listener
	tls        *tls.Config // nil: no TLS
	actors     bool        // the parent is that of an ActorServer, which sets this before Start
	parent     any         // a gen.PID, set by Init; converted once for all connections

	handshakes handshakeLimiter
	next       int            // index in ProcessPool; used by Start's goroutine
	owners     sync.Map       // gen.Atom to the gen.PID last found for it, if the option Node is set; used by connections
	logLimit   rate.Sometimes // of error lines
	closing    chan struct{}  // closed by close: no more connections are accepted
	closeOnce  sync.Once
	stopped    chan struct{} // closed when Start has returned

	mu        sync.Mutex                  // guards all below
	open      map[*tcpConnection]struct{} // Start's goroutine adds, each connection removes itself
	stats     ServerStats                 // the counters; Traffic is that of ended connections
	addresses addressTable
	accepting
	changed signal // broadcast when open or accepting changes
}

// CreateTCPServer opens a listening socket and returns the meta process that serves it: pass it to
// SpawnMeta. If SpawnMeta fails, call Terminate of the result: it frees the port.
//
// CreateTCPServer waits up to a second for an address in use, because the previous server of a
// restarted process may still be ending.
//
// The error wraps [ErrOption] and names every option that is wrong, or wraps [ErrListen].
func CreateTCPServer(options TCPServerOptions) (gen.MetaBehavior, error) {
	connection, err := options.parse()
	if err != nil {
		return nil, err
	}
	s := &tcpServer{
		opt: options, connection: connection,
		closing: make(chan struct{}), stopped: make(chan struct{}), open: map[*tcpConnection]struct{}{},
		stats:     ServerStats{TLS: "off", Refused: map[string]uint64{}, Ended: map[string]uint64{}},
		addresses: addressTable{used: map[netip.Addr]addressUse{}},
		logLimit:  rate.Sometimes{First: 5, Interval: time.Second},
	}
	if options.CertManager != nil {
		if s.tls, err = serverTLS(options.CertManager, slices.Clone(options.NextProtos)); err != nil {
			return nil, err
		}
		s.tls, s.stats.TLS = serverConfig(s.tls, options.InsecureSkipVerify), "on"
	}
	if options.StartTLS {
		s.stats.TLS = "StartTLS"
	}
	s.max = options.limits()
	s.handshakes.setMax(s.max.MaxHandshakes)
	if s.listener, err = listen(&options); err != nil {
		return nil, err
	}
	s.stats.Listen = s.listener.Addr().String()
	return s, nil
}

// Init implements gen.MetaBehavior.
func (s *tcpServer) Init(process gen.MetaProcess) error {
	s.process, s.parent = process, process.Parent()
	process.Log().AddFields(gen.LogField{Name: "listener", Value: s.listener.Addr().String()})
	return nil
}

// watchManager logs that the manager was closed while the server listens.
func (s *tcpServer) watchManager(manager doner) {
	select {
	case <-manager.Done():
		s.process.Log().Error("the CertManager of %s was closed: its last certificates are served, none is reloaded, and no connection ends because its "+
			"peer is no longer trusted; close it after the server", s.listener.Addr())
	case <-s.closing:
	}
}

// left releases what a connection has held. It is called once for each connection passed to serve.
func (s *tcpServer) left(c *tcpConnection) {
	reason := c.view().reason
	var addr netip.Addr
	if c.counted { // else the address may not be known
		addr = limitAddr(c.sock.RemoteAddr())
	}
	s.mu.Lock()
	if c.counted {
		s.addresses.release(addr)
	}
	if !c.summed { // this side ended it before its MessageTCPConnect
		s.stats.Refused[refusals[whyRefused(reason)].why]++
	}
	delete(s.open, c)
	s.stats.add(c.traffic())
	s.slots--
	s.changed.broadcast()
	s.alarmLocked()
	s.mu.Unlock()
}

func (s *tcpServer) count(change func(*ServerStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.stats)
}

// await waits until holds, called with mu held, returns true. It returns false if stop is closed
// first.
func (s *tcpServer) await(holds func() bool, stop <-chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !holds() {
		changed := s.changed.wait()
		s.mu.Unlock()
		select {
		case <-changed:
			s.mu.Lock()
		case <-stop:
			s.mu.Lock()
			return false
		}
	}
	return true
}

// HandleMessage implements gen.MetaBehavior.
func (s *tcpServer) HandleMessage(from gen.PID, message any) error {
	if m, ok := message.(MessageTCPDrain); ok {
		go s.drain(m.Timeout)
		return nil
	}
	switch result := s.control(message).(type) {
	case nil:
		s.process.Log().Warning("unknown message from %s ignored: %T; %s", from, message,
			meant(message, "a server takes MessageTCPDrain, MessageTCPSuspend, MessageTCPResume and MessageTCPLimits; what is for a connection goes to the ID of its MessageTCPConnect"))
	case error:
		s.process.Log().Error("%T from %s refused: %s", message, from, result)
	}
	return nil
}

// HandleCall implements gen.MetaBehavior.
func (s *tcpServer) HandleCall(_ gen.PID, _ gen.Ref, request any) (any, error) {
	if m, ok := request.(MessageTCPDrain); ok {
		return s.drain(m.Timeout), nil
	}
	if result := s.control(request); result != nil {
		return result, nil
	}
	return gen.ErrUnsupported, nil
}

// Terminate implements gen.MetaBehavior. It closes the listening socket, but no connection. It may
// be called in any phase and more than once.
func (s *tcpServer) Terminate(error) { s.close() }

// close stops the accept loop and frees the port.
func (s *tcpServer) close() {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.listener.Close()
	})
}
