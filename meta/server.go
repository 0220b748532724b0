package meta

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"ergo.services/ergo/gen"
	"golang.org/x/time/rate"
)

// The goroutines of a server:
//
//   - Start's, run by the engine: the accept loop. It ends when the listener is closed.
//   - the engine's message goroutine, there while there are messages.
//   - watchManager, where there is a CertManager that says when it is closed. It ends with the listener.
//   - those of several listeners, see listeners.
//   - one for each drain, until the connections are gone.

var (
	errOverLimit = errors.New("over the limit")
	errTwiceTLS  = errors.New("the connections of Listener are TLS connections already; leave CertManager unset, or give the listener below")
)

// tcpServer is the meta process of a listening socket. Its connections are meta processes of their own, under the same parent, and outlive it.
type tcpServer struct {
	behavior

	opt        TCPServerOptions
	connection *TCPConnectionOptions // of each accepted connection
	listener   net.Listener
	tls        *tls.Config       // nil: no TLS
	handshakes *handshakeLimiter // nil: no TLS
	slots      chan struct{}     // nil: no limit
	addresses  *addressTable
	next       int  // Start's: index in ProcessPool
	actors     bool // the parent is an ActorServer's; set before Start

	process   gen.MetaProcess // set by Init
	parent    any             // its PID; boxed once for all connections
	closing   chan struct{}   // closed: no further connection is accepted
	stopped   chan struct{}   // closed: Start has returned
	closeOnce sync.Once
	complain  rate.Sometimes // about what keeps the server from accepting

	mu    sync.Mutex // guards all below
	open  map[*tcpConnection]struct{}
	empty chan struct{} // closed by the last connection that leaves; nil: nobody waits
	stats serverStats
}

// CreateTCPServer opens a listening socket and returns the meta process that serves it: hand it to SpawnMeta. If
// SpawnMeta fails, call Terminate of what was returned: it frees the port.
//
// The error wraps [ErrOption] and names every option that is wrong, or wraps [ErrListen].
func CreateTCPServer(options TCPServerOptions) (gen.MetaBehavior, error) {
	connection, err := options.parse()
	if err != nil {
		return nil, err
	}
	s := &tcpServer{
		opt: options, connection: connection,
		closing: make(chan struct{}), stopped: make(chan struct{}), open: map[*tcpConnection]struct{}{}, stats: newServerStats(),
		complain: rate.Sometimes{First: 5, Interval: time.Second},
	}
	if options.CertManager != nil {
		if s.tls, err = serverTLS(options.CertManager, slices.Clone(options.NextProtos), options.InsecureSkipVerify); err != nil {
			return nil, err
		}
		s.tls = serverConfig(s.tls)
		s.handshakes = newHandshakeLimiter(cmp.Or(options.MaxHandshakes, 2*runtime.GOMAXPROCS(0)))
	}
	if options.MaxConnections > 0 {
		s.slots = make(chan struct{}, options.MaxConnections)
	}
	s.addresses = newAddressTable(options.MaxConnectionsPerAddress, options.MaxHandshakeFailures)
	if s.listener, err = listen(context.Background(), &options); err != nil {
		return nil, err
	}
	return s, nil
}

// Init implements gen.MetaBehavior.
func (s *tcpServer) Init(process gen.MetaProcess) error {
	s.process, s.parent = process, process.Parent()
	process.Log().AddFields(gen.LogField{Name: "listener", Value: s.listener.Addr().String()})
	return nil
}

// Start implements gen.MetaBehavior: it accepts connections until the listener is closed.
func (s *tcpServer) Start() error {
	defer close(s.stopped)
	log := s.process.Log()
	log.Info("listening on %s (TLS: %s)", listenerAddrs(s.listener), s.describeTLS())
	if manager, ok := s.opt.CertManager.(doner); ok {
		go s.watchManager(manager)
	}
	if s.opt.InsecureSkipVerify {
		log.Warning("InsecureSkipVerify is set: client certificates are not verified on %s", s.listener.Addr())
	}
	var backoff time.Duration
	for s.takeSlot() {
		conn, err := s.listener.Accept()
		if err == nil {
			backoff = 0
			s.serve(conn)
			continue
		}
		s.freeSlot()
		class := classifyAccept(err)
		if class == acceptClosed {
			s.close()
			return nil
		}
		s.count(func(stats *serverStats) { stats.acceptErrors++ })
		backoff = nextBackoff(backoff)
		s.complain.Do(func() {
			log.Error("accept on %s failed: %s (%s); next try in %s", s.listener.Addr(), err, class, backoff)
		})
		select {
		case <-time.After(backoff):
		case <-s.closing:
		}
	}
	return nil
}

// watchManager tells that the manager was closed while the server listens.
func (s *tcpServer) watchManager(manager doner) {
	select {
	case <-manager.Done():
		s.process.Log().Error("the CertManager of %s was closed: its last certificates are served, none is reloaded, and no connection ends because its "+
			"peer is not trusted any more. Close it after the server", s.listener.Addr())
	case <-s.closing:
	}
}

// takeSlot waits for room for one more connection. It returns false when the server is closing.
func (s *tcpServer) takeSlot() bool {
	if s.slots == nil {
		select {
		case <-s.closing:
			return false
		default:
			return true
		}
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.closing:
		return false
	}
}

func (s *tcpServer) freeSlot() {
	if s.slots != nil {
		<-s.slots
	}
}

// serve spawns the meta process of an accepted connection. It does not block.
func (s *tcpServer) serve(conn net.Conn) {
	sock := newSocket(conn)
	if s.opt.Listener != nil {
		sock.unblock()
	}
	setKeepAlive(conn, s.connection.KeepAlivePeriod)
	to := s.parent
	if len(s.opt.ProcessPool) > 0 {
		to = s.opt.ProcessPool[s.next]
		s.next = (s.next + 1) % len(s.opt.ProcessPool)
	}
	c := newConnection(s.connection, s, sock, to)
	if s.opt.Listener != nil {
		c.given = givenTLS(conn)
	}
	s.mu.Lock()
	s.open[c] = struct{}{}
	s.stats.accepted++
	s.mu.Unlock()
	if c.given != nil && s.tls != nil {
		s.complain.Do(func() { s.process.Log().Error("connection from %s dropped: %s", conn.RemoteAddr(), errTwiceTLS) })
		c.Terminate(errTwiceTLS)
		return
	}
	if !s.behindProxy(conn) {
		if len(s.opt.ProxyFrom) > 0 {
			c.sock.guard = &proxyGuard{}
		}
		if err := s.admit(c); err != nil {
			s.refused(c, "admission", err)
			c.Terminate(err)
			return
		}
	}
	if _, err := s.process.Spawn(c, s.opt.ConnectionMeta); err != nil {
		s.complain.Do(func() { s.process.Log().Error("connection from %s dropped: %s", conn.RemoteAddr(), err) })
		c.Terminate(err)
	}
}

// behindProxy says that conn comes from a source whose connections start with a PROXY header.
func (s *tcpServer) behindProxy(conn net.Conn) bool {
	return contains(s.opt.ProxyFrom, conn.RemoteAddr())
}

// admit counts a connection of its address. The error names the option whose limit is reached.
func (s *tcpServer) admit(c *tcpConnection) error {
	if option := s.addresses.admit(limitAddr(c.sock.RemoteAddr())); option != "" {
		return fmt.Errorf("%w %s", errOverLimit, option)
	}
	c.counted = true
	return nil
}

// left takes back what a connection has held. It is called once for each connection of serve.
func (s *tcpServer) left(c *tcpConnection) {
	if c.counted {
		s.addresses.release(limitAddr(c.sock.RemoteAddr()))
	}
	s.mu.Lock()
	delete(s.open, c)
	s.stats.carried.add(c.traffic())
	if len(s.open) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
	s.mu.Unlock()
	s.freeSlot()
}

// refused counts a connection that no actor has heard of, and says so now and then.
func (s *tcpServer) refused(c *tcpConnection, stage string, err error) {
	why, total := whyRefused(err), uint64(0)
	s.count(func(stats *serverStats) {
		stats.refused[why]++
		for _, n := range stats.refused {
			total += n
		}
	})
	if why == refusedNothing {
		s.process.Log().Debug("%s of %s: %s", stage, c.sock.RemoteAddr(), err)
		return
	}
	source := limitAddr(c.sock.RemoteAddr())
	if isFailure(why) {
		s.addresses.failed(source)
	}
	if s.addresses.mayLog(source) {
		log := s.process.Log()
		if c.process != nil { // it was spawned
			log = c.log(gen.LogField{Name: "listener", Value: s.listener.Addr().String()}, gen.LogField{Name: "refused", Value: why})
		}
		log.Warning("%s of %s refused: %s (%d refused so far)", stage, c.sock.RemoteAddr(), err, total)
	}
}

func (s *tcpServer) count(change func(*serverStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.stats)
}

// HandleMessage implements gen.MetaBehavior.
func (s *tcpServer) HandleMessage(from gen.PID, message any) error {
	m, ok := message.(MessageTCPDrain)
	if !ok {
		s.process.Log().Warning("unknown message from %s ignored: %T", from, message)
		return nil
	}
	go s.drain(m.Timeout)
	return nil
}

// HandleCall implements gen.MetaBehavior.
func (s *tcpServer) HandleCall(_ gen.PID, _ gen.Ref, request any) (any, error) {
	if m, ok := request.(MessageTCPDrain); ok {
		return s.drain(m.Timeout), nil
	}
	return gen.ErrUnsupported, nil
}

// Terminate implements gen.MetaBehavior: it closes the listening socket and leaves the
// connections alone. It may be called in any phase and more than once.
func (s *tcpServer) Terminate(error) { s.close() }

// close stops the accept loop and frees the port.
func (s *tcpServer) close() {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.listener.Close()
	})
}
