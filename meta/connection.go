package meta

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ergo.services/ergo/gen"
)

// The goroutines of a connection:
//
//   - Start's, run by the engine: it has the handshake made, reads, and in finish brings the
//     connection to its end, whoever ended it. It ends when the connection is closed.
//   - one of the server's crew, for the handshake of an accepted connection; Start's waits for it, so they are as one.
//   - the engine's message goroutine, there while there are messages: it handles one at a time and,
//     in Terminate, waits for Start's.
//   - the writer's drain, there while the peer does not take what is written. Its writes have deadlines.
//   - awaitExit, there while the message goroutine waits for the peer for long. It ends with that wait.

// The phases of a connection.
const (
	created int32 = iota
	started
	terminated // before it was started
)

// tcpConnection is the meta process of one connection, accepted or outgoing.
type tcpConnection struct {
	behavior

	opt       *TCPConnectionOptions
	server    *tcpServer  // nil: outgoing
	clientTLS *tls.Config // outgoing, with TLS
	sock      *socket

	process gen.MetaProcess // set by Init
	to      any             // who gets the messages: a gen.Atom or gen.PID; nil before Init: the parent
	self    any             // the message goroutine's: its own alias, once it was needed
	stream  stream          // the TLS connection, or the socket without TLS; settled once ready is closed, but for StartTLS
	writer  writer
	inbox   inbox
	release func() // of the manager's Track; nil: not tracked

	// Set before Start by a reconnecting, else nil: called when Connect was sent, and before Disconnect is.
	onConnect func()
	onEnd     func(*DisconnectError) (retry time.Time)
	retry     time.Time // finish's: what onEnd said

	brokenUntil int64  // Start's: how long to read on after broken; unix nanoseconds
	answered    uint32 // the message goroutine's: the last bits of stats.messagesIn at the last write
	refusing    bool   // the message goroutine's: a write was refused
	lone        bool   // Start's: the last time that there was something to read it was one record
	established bool   // Start's: ready was reached by establish
	counted     bool   // by the server's address book
	actor       bool   // Start's: an actor was asked for

	phase     atomic.Int32
	ready     sync.WaitGroup                  // done: it can be written to, or has ended before
	drainAt   atomic.Pointer[time.Time]       // a Draining that is to be sent
	telling   sync.Mutex                      // held while a Draining is sent; guards final
	connected atomic.Bool                     // Connect was sent
	final     bool                            // Disconnect is on its way: nothing may follow
	ended     atomic.Pointer[DisconnectError] // why it ends; set once, and by finish where a write knows better
	cancel    atomic.Pointer[context.CancelFunc]
	upgrade   atomic.Pointer[upgrade]
	broken    atomic.Pointer[error]         // the write error that the read loop may still find a better reason for
	credit    atomic.Int64                  // messages that may be delivered, where opt.Active is set
	readLimit atomic.Uint64                 // of stats.bytesIn, while writes wait for the peer: there reading stops; 0: none
	wake      atomic.Pointer[chan struct{}] // of capacity 1: what the read loop looks at has changed; nil as long as it never paused
	watched   atomic.Bool                   // by hangUps
	done      sync.WaitGroup                // done: it is over
	logged    sync.Once                     // its log has its fields
	stats     connectionStats
}

// stream is what the TLS connection and the socket have in common.
type stream interface {
	net.Conn
	CloseWrite() error
}

// newConnection makes a connection whose messages go to a gen.Atom, to a gen.PID or, where to is nil, to the parent.
func newConnection(opt *TCPConnectionOptions, server *tcpServer, sock *socket, to any) *tcpConnection {
	c := &tcpConnection{opt: opt, server: server, sock: sock, to: to, stream: sock}
	c.ready.Add(1)
	c.done.Add(1)
	c.credit.Store(int64(opt.Active))
	c.inbox.init(opt)
	c.writer.init(c, opt.WriteBuffer, sock)
	c.stats.opened = time.Now().UnixNano()
	return c
}

// log is the log of the connection. The first line adds the fields, since most connections never write one.
func (c *tcpConnection) log(fields ...gen.LogField) gen.Log {
	log := c.process.Log()
	c.logged.Do(func() {
		log.AddFields(append(fields, gen.LogField{Name: "remote", Value: c.sock.RemoteAddr().String()}, gen.LogField{Name: "owner", Value: fmt.Sprint(c.to)})...)
	})
	return log
}

// Init implements gen.MetaBehavior. It runs on the goroutine of whoever spawns the connection.
func (c *tcpConnection) Init(process gen.MetaProcess) error {
	c.process = process
	if c.to == nil {
		c.to = process.Parent()
	}
	return nil
}

// Start implements gen.MetaBehavior.
func (c *tcpConnection) Start() error {
	if !c.phase.CompareAndSwap(created, started) {
		return nil
	}
	defer c.finish()
	if c.server == nil && c.opt.InsecureSkipVerify {
		c.log().Warning("InsecureSkipVerify is set: the certificate of %s is not verified", c.sock.RemoteAddr())
	}
	if c.establishAside() {
		c.read()
	}
	// The reason went to the owner. To the engine every end of a connection is normal.
	return nil
}

// reserveStack makes the stack of its goroutine large enough for a write before there is much on it to be moved: Ergo handles a message on a fresh
// goroutine, whose stack would grow twice on the way down to the socket. For that its frame is large, as a write over TLS
// needs (Go 1.26, amd64); nothing is done with it.
//
//go:noinline
func reserveStack(fill bool) (last byte) {
	if fill {
		var room [2800]byte
		for i := range room {
			room[i] = last
			last += room[i/2]
		}
	}
	return last
}

// HandleMessage implements gen.MetaBehavior. What comes before the connection is established waits for that, so
// that nothing is written in the clear.
func (c *tcpConnection) HandleMessage(from gen.PID, message any) error {
	reserveStack(false)
	c.awaitReady()
	switch m := message.(type) {
	case MessageTCP:
		if err := c.write(m.Data); err != nil && !c.refusing {
			c.refusing = true
			c.log().Debug("%d bytes from %s and all after them not taken: %s", len(m.Data), from, err)
		}
	case flushRequest:
		c.writer.flush()
		c.readOn()
	case MessageTCPActive:
		c.activate(m.N)
	case MessageTCPClose:
		c.end(ErrTerminated, nil)
	case MessageTCPCloseWrite:
		c.closeWrite()
	case MessageTCPStartTLS:
		c.startTLS(from, m.Reply)
	default:
		c.log().Warning("unknown message from %s ignored: %T", from, message)
	}
	return nil
}

// HandleCall implements gen.MetaBehavior. A MessageTCP is answered when it was handed to the kernel, with the number of its bytes or
// an error as the result.
func (c *tcpConnection) HandleCall(from gen.PID, _ gen.Ref, request any) (any, error) {
	m, ok := request.(MessageTCP)
	if !ok {
		return gen.ErrUnsupported, nil
	}
	c.awaitReady()
	size := len(m.Data)
	if err := c.take(m.Data, synced); err != nil {
		return err, nil
	}
	if err := c.writer.sync(); err != nil {
		return err, nil
	}
	return size, nil
}

// awaitReady waits while a handshake is under way.
func (c *tcpConnection) awaitReady() {
	if c.connected.Load() && c.upgrade.Load() == nil {
		return
	}
	defer c.watchExit()()
	c.ready.Wait()
	if up := c.upgrade.Load(); up != nil {
		if c.ended.Load() != nil {
			c.done.Wait() // the upgrade may have come too late for finish to see it
			return
		}
		<-up.done
	}
}

// flushRequest is what a connection sends to itself behind the messages that are waiting: when it comes, they are collected.
type flushRequest struct{}

// write takes data for writing and sees to it that it is written: at once where it looks like the answer to a
// single message, to which the peer waits, else behind the messages that follow.
func (c *tcpConnection) write(data []byte) error {
	in := uint32(c.stats.messagesIn.Load())
	single := in-c.answered == 1
	c.answered = in
	if single {
		return c.take(data, now)
	}
	return c.take(data, later)
}

// accept takes data for writing once the connection is established. An error says that nothing was taken.
func (c *tcpConnection) accept(data []byte) error {
	c.awaitReady()
	return c.write(data)
}

// flushLater asks for a flush behind the messages that wait. It fails where the mailbox is full, or the parent has ended.
func (c *tcpConnection) flushLater() bool {
	if c.self == nil {
		c.self = c.process.ID()
	}
	return c.process.Send(c.self, flushRequest{}) == nil
}

func (c *tcpConnection) recycle(message []byte) { c.inbox.recycle(message) }

// take takes data for writing.
func (c *tcpConnection) take(data []byte, when when) error {
	err := c.writer.write(data, when)
	if err == nil {
		c.stats.messagesOut.Add(1)
	}
	return err
}

// writeFailed is called by the writer with its first error.
func (c *tcpConnection) writeFailed(err error) {
	if timeout(err) {
		c.end(ErrSlowConsumer, err)
		return
	}
	// The peer is gone. What it sent before, an alert perhaps, says why: the read loop finds it.
	c.broken.Store(&err)
	c.interrupt()
}

// timeout says that a deadline of ours has passed. ETIMEDOUT is another: the kernel has given the peer up.
func timeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
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
	c.credit.Add(min(int64(n), 1<<31))
	c.wakeUp()
}
