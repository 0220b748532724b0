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
//   - Start's, run by the engine: it performs the handshake, reads, and ends the connection in
//     finish, whoever asked for the end. It ends when the connection is closed.
//   - the engine's message goroutine, which runs while there are messages: it handles one at a time
//     and, in Terminate, waits for Start's goroutine.
//   - the writer's drain, which runs while the kernel has no room for written data.

// tcpConnection is the meta process of one accepted or outgoing connection.
type tcpConnection struct {
	behavior

	// Set before Start runs, and not changed after it.
	opt       *TCPConnectionOptions
	server    *tcpServer   // nil: outgoing
	clientTLS *tls.Config  // outgoing, with TLS
	proxy     *ProxyHeader // used by Start's goroutine until Connect is sent
	given     tlsConn      // the TLS connection that a given listener has accepted; nil: it is none
	sock      *socket
	self      any // the alias, set by Init; converted once, since each conversion allocates
	opened    time.Time
	// Set by a reconnecting, else nil: called before Connect and before Disconnect is sent.
	onConnect func()
	onEnd     func(*DisconnectError) (retry time.Time)

	// Set by Start's goroutine before the phase is open, stream also by an upgrade; other goroutines
	// read them after that.
	to     any    // the receiver of the messages: a gen.Atom or gen.PID. It may change: see owner
	stream stream // the TLS connection, or the socket without TLS

	reader        // Start's goroutine
	sender        // the message goroutine
	writer writer // has a mutex of its own
	life          // shared by all
	logged
	stats  connectionStats
	summed bool // in the server's Refused, Ended or Challenges, whose mu guards it

	// Times since opened, each a time.Duration.
	active  atomic.Int64 // of the last read or write, if IdleTimeout is set; set by all goroutines
	written atomic.Int64 // of the last write, if KeepAliveMessage is set; set by the writing goroutine
}

// reader has the fields that only Start's goroutine uses.
type reader struct {
	inbox       inbox
	release     func()            // returned by the manager's Track; nil: not tracked
	foreign     bool              // of a given Listener and of another type than those of package net: see findAddr
	counted     bool              // in the server's addressTable
	actor       bool              // an actor was asked for
	expiring    bool              // the owner was told of MaxLifetime
	brokenUntil time.Time         // how long to read on after a failed write; zero: none has failed
	retry       time.Time         // result of onEnd
	batch       batch             // what was delivered recently
	inputEnded  time.Time         // when the peer ended its side; zero: it may send more
	readAt      time.Time         // when all data was last read; while reads are skipped, since when
	expires     time.Time         // when MaxLifetime is reached; zero: never
	ownerAt     time.Time         // when to check that the owner still runs; zero: never
	shown       *x509.Certificate // the leaf of a peer whose handshake failed
	unacked     int               // bytes that the peer's kernel had not acknowledged when the connection was last idle
}

// sender has the fields that only the message goroutine uses.
type sender struct {
	answered uint32 // the last bits of stats.messagesIn at the last write
	refusing bool   // a write was refused
}

// stream has the methods common to the TLS connection and the socket.
type stream interface {
	net.Conn
	CloseWrite() error
}

// newConnection makes a connection whose messages go to the gen.Atom or gen.PID in to or, if to is
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

// Init implements gen.MetaBehavior. It runs on the goroutine that spawns the connection.
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
	// The owner has the reason. For the engine every end of a connection is normal.
	return nil
}

// HandleMessage implements gen.MetaBehavior. A message that arrives before the connection is
// established waits until it is, so that nothing is written in the clear.
func (c *tcpConnection) HandleMessage(from gen.PID, message any) error {
	switch message.(type) { // the connection's own messages do not wait, since an exit would wait behind them
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

// HandleCall implements gen.MetaBehavior. A MessageTCP is answered once the kernel has it; the
// result is the number of its bytes, or an error.
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
// for up to WriteTimeout or HandshakeTimeout. But an exit unregisters the alias at once, so await
// checks the alias periodically.
func (c *tcpConnection) await(signal <-chan struct{}) {
	ticker := time.NewTicker(max(c.opt.CloseTimeout/4, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-signal:
			return
		case <-ticker.C:
			// Not once the connection ends: Ergo forwards a message that arrives at the moment a meta
			// process ends to the parent.
			if c.view().reason == nil && unreachable(c.process.Send(c.process.ID(), flushRequest{})) {
				c.end(ErrTerminated, nil)
			}
		}
	}
}

// flushRequest is a message that a connection sends to itself. It queues behind the waiting
// messages: when it arrives, they have been collected.
type flushRequest struct{}

// write accepts a message and writes it: at once if it looks like the answer to a single message,
// for which the peer waits, otherwise together with the messages that follow.
func (c *tcpConnection) write(m MessageTCP) error {
	in := uint32(c.stats.messagesIn.Load())
	single := in-c.answered == 1
	c.answered = in
	if single {
		return c.take(m, now)
	}
	return c.take(m, later)
}

// accept accepts a message for writing once the connection is open. On error no part of it was
// accepted.
func (c *tcpConnection) accept(m MessageTCP) error {
	c.awaitOpen()
	return c.write(m)
}

// take accepts a message for writing.
func (c *tcpConnection) take(m MessageTCP, when when) error {
	err := c.writer.write(m, when)
	if err == nil {
		c.stats.messagesOut.Add(1)
	}
	return err
}

// sendSelf sends a message to the connection itself, behind the waiting ones. It fails if the
// mailbox is full or the parent has ended.
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
		if err = c.writer.syncAll(); err == nil { // the kernel may have had no room for close_notify
			err = c.sock.CloseWrite()
		}
	}
	if err != nil {
		c.log().Debug("half-close failed: %s", err)
	}
}

func (c *tcpConnection) activate(n int) {
	if n < 1 || c.opt.Active == 0 {
		c.log().Warning("MessageTCPActive{%d} ignored: N must be above 0, and the option Active must be set", n)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.credit += min(n, 1<<30-c.credit)
	c.changed.broadcast()
}
