package meta

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
)

// The goroutines of a connection:
//
//   - Start's, run by the engine: it makes the handshake, reads, and in finish brings the
//     connection to its end, whoever ended it. It ends when the connection is closed.
//   - the engine's message goroutine, there while there are messages: it handles one at a time and,
//     in Terminate, waits for Start's.
//   - the writer's drain, there while the peer does not take what is written.

// tcpConnection is the meta process of one connection, accepted or outgoing.
type tcpConnection struct {
	behavior

	// Set before Start runs, and not changed after it.
	opt       *TCPConnectionOptions
	server    *tcpServer   // nil: outgoing
	clientTLS *tls.Config  // outgoing, with TLS
	proxy     *ProxyHeader // Start's, until Connect
	given     tlsConn      // what a given listener has accepted, where that is a TLS connection
	sock      *socket
	self      any // its alias, set by Init; made once, since each conversion allocates
	opened    time.Time
	// Of a reconnecting, else nil: called before Connect is sent, and before Disconnect is.
	onConnect func()
	onEnd     func(*DisconnectError) (retry time.Time)

	// Set by Start's goroutine before it is open, stream also by an upgrade; others read them after
	// that.
	to     any    // who gets the messages: a gen.Atom or gen.PID. It may change later: see owner
	stream stream // the TLS connection, or the socket without TLS

	reader        // Start's goroutine
	sender        // the message goroutine
	writer writer // has a mutex of its own
	life          // shared by all
	logged
	stats connectionStats

	// Times since opened, each a time.Duration.
	active  atomic.Int64 // of the last read or write, where IdleTimeout is set; set by all goroutines
	written atomic.Int64 // of the last write, where KeepAliveMessage is set; set by whoever writes
}

// reader is what Start's goroutine has for itself.
type reader struct {
	inbox       inbox
	bulk        bool              // the last read brought much
	release     func()            // of the manager's Track; nil: not tracked
	counted     bool              // by the server's address book
	actor       bool              // an actor was asked for
	brokenUntil time.Time         // how long to read on after a failed write; zero: none has failed
	retry       time.Time         // what onEnd said
	batch       batch             // what was delivered of late
	inputEnded  time.Time         // when the peer had sent all; zero: it may send more
	expires     time.Time         // when it is old; zero: never
	expiring    bool              // the owner knows that it is
	ownerAt     time.Time         // when to look whether the owner is still there; zero: never
	shown       *x509.Certificate // the leaf of a peer whose handshake failed
	unacked     int               // what the peer's kernel had not taken when the connection last looked idle
}

// sender is what the message goroutine has for itself.
type sender struct {
	answered uint32 // the last bits of stats.messagesIn at the last write
	refusing bool   // a write was refused
}

// stream is what the TLS connection and the socket have in common.
type stream interface {
	net.Conn
	CloseWrite() error
}

// newConnection makes a connection whose messages go to a gen.Atom, to a gen.PID or, where to is
// nil, to the process of the options.
func newConnection(opt *TCPConnectionOptions, server *tcpServer, sock *socket, to any) *tcpConnection {
	c := &tcpConnection{opt: opt, server: server, sock: sock, to: to, stream: sock, opened: time.Now()}
	c.credit = opt.Active
	c.sock.timeout = opt.WriteTimeout
	c.batch.rate = 1
	c.inbox.init(opt)
	c.writer.conn, c.writer.limit = c, uint64(opt.WriteBuffer)
	return c
}

// Init implements gen.MetaBehavior. It runs on the goroutine of whoever spawns the connection.
func (c *tcpConnection) Init(process gen.MetaProcess) error {
	c.process, c.self = process, process.ID()
	if c.to == nil {
		c.to = ownerOf(process, c.opt.Process)
	}
	return nil
}

// Start implements gen.MetaBehavior.
func (c *tcpConnection) Start() error {
	c.mu.Lock()
	if c.phase != created { // it was terminated
		c.mu.Unlock()
		return nil
	}
	c.phase = establishing
	c.mu.Unlock()
	defer c.finish()
	if c.server == nil && c.opt.InsecureSkipVerify {
		c.log().Warning("InsecureSkipVerify is set: the certificate of %s is not verified", c.sock.RemoteAddr())
	}
	if c.establish() {
		c.read()
	}
	// The reason went to the owner. To the engine every end of a connection is normal.
	return nil
}

// HandleMessage implements gen.MetaBehavior. What comes before the connection is established waits
// for that, so that nothing is written in the clear.
func (c *tcpConnection) HandleMessage(from gen.PID, message any) error {
	switch message.(type) { // its own do not wait, since an exit would wait behind them
	case flushRequest:
		c.writer.flush()
		return nil
	case catchUp:
		c.catchUp()
		return nil
	}
	c.awaitOpen()
	switch m := message.(type) {
	case MessageTCP:
		if err := c.write(m); err != nil && !c.refusing {
			c.refusing = true
			c.log().Debug("%d bytes from %s and all after them not taken: %s", len(m.Data), from, err)
		}
	case MessageTCPActive:
		c.activate(m.N)
	case MessageTCPClose:
		c.end(ErrTerminated, nil)
	case MessageTCPCloseWrite:
		c.closeWrite()
	case MessageTCPOwner:
		c.setOwner(from, m.PID)
	case MessageTCPStartTLS:
		c.startTLS(from, m)
	default:
		c.log().Warning("unknown message from %s ignored: %T; %s", from, message, meant(message, connectionMessages))
	}
	return nil
}

// HandleCall implements gen.MetaBehavior. A MessageTCP is answered when it was handed to the
// kernel, with the number of its bytes or an error as the result.
func (c *tcpConnection) HandleCall(from gen.PID, _ gen.Ref, request any) (any, error) {
	m, ok := request.(MessageTCP)
	if !ok {
		return gen.ErrUnsupported, nil
	}
	c.awaitOpen()
	size := len(m.Data)
	if err := c.take(m, synced); err != nil {
		return err, nil
	}
	if err := c.writer.sync(); err != nil {
		return err, nil
	}
	return size, nil
}

// awaitOpen waits while a handshake is under way.
func (c *tcpConnection) awaitOpen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.phase < open || c.upgrade != nil && c.phase < over {
		changed := c.changed.wait()
		c.mu.Unlock()
		c.await(changed)
		c.mu.Lock()
	}
}

// await waits on the message goroutine. An exit is handled on that goroutine, so it would wait too,
// for up to WriteTimeout or HandshakeTimeout. What tells of it before is the alias, which is gone
// at once: it is asked now and then.
func (c *tcpConnection) await(signal <-chan struct{}) {
	select {
	case <-signal:
		return
	default:
	}
	ticker := time.NewTicker(max(c.opt.CloseTimeout/4, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-signal:
			return
		case <-ticker.C:
			// Not once it ends: what comes to a meta process at the very moment of its end, Ergo
			// itself hands to the parent.
			if c.view().reason == nil && unreachable(c.process.Send(c.process.ID(), flushRequest{})) {
				c.end(ErrTerminated, nil)
			}
		}
	}
}

// flushRequest is what a connection sends to itself behind the messages that are waiting: when it
// comes, they are collected.
type flushRequest struct{}

// write takes a message and sees to it that it is written: at once where it looks like the answer
// to a single message, for which the peer waits, else behind the messages that follow.
func (c *tcpConnection) write(m MessageTCP) error {
	in := uint32(c.stats.messagesIn.Load())
	single := in-c.answered == 1
	c.answered = in
	if single {
		return c.take(m, now)
	}
	return c.take(m, later)
}

// accept takes a message for writing once the connection is open. An error says that nothing was
// taken.
func (c *tcpConnection) accept(m MessageTCP) error {
	c.awaitOpen()
	return c.write(m)
}

// take takes a message for writing.
func (c *tcpConnection) take(m MessageTCP, when when) error {
	err := c.writer.write(m, when)
	if err == nil {
		c.stats.messagesOut.Add(1)
	}
	return err
}

// sendSelf sends a message to the connection itself, behind those that wait. It fails where the
// mailbox is full, or the parent has ended.
func (c *tcpConnection) sendSelf(message any) bool {
	return c.process.Send(c.self, message) == nil
}

func (c *tcpConnection) closeWrite() {
	err := c.writer.sync()
	c.writer.close()
	if err == nil {
		err = c.stream.CloseWrite()
	}
	if err == nil && c.stream != stream(c.sock) {
		err = c.sock.CloseWrite()
	}
	if err != nil {
		c.log().Debug("half-close failed: %s", err)
	}
}

func (c *tcpConnection) activate(n int) {
	if n < 1 || c.opt.Active == 0 {
		c.log().Warning("MessageTCPActive{%d} ignored: N must be above 0, and the option Active be set", n)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.credit += min(n, 1<<30-c.credit)
	c.changed.broadcast()
}
