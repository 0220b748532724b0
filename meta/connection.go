package meta

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
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
//   - the writer's drain, there while the peer does not take what is written. Its writes have deadlines.

// lingerTimeout is how long a closed connection waits for the peer to close too, so that our last bytes are not lost in a reset.
const lingerTimeout = 500 * time.Millisecond

// The phases of a connection.
const (
	created int32 = iota
	started
	terminated // before it was started
)

// tcpConnection is the meta process of one connection, accepted or outgoing.
type tcpConnection struct {
	opt       *TCPConnectionOptions
	server    *tcpServer  // nil: outgoing
	clientTLS *tls.Config // outgoing, with TLS
	sock      *socket
	worker    gen.Atom   // empty: the parent
	counted   netip.Addr // what the server's address book counts it as

	process gen.MetaProcess // set by Init
	to      any             // who gets the messages: a gen.Atom or gen.PID; boxed once
	self    any             // its own alias; boxed once
	stream  stream          // the TLS connection, or the socket without TLS; settled once ready is closed, but for StartTLS
	writer  writer
	inbox   inbox
	release func() // of the manager's Track; nil: not tracked

	refusing    bool      // the message goroutine's: a write was refused
	established bool      // Start's: ready was closed by establish
	brokenUntil time.Time // Start's: how long to read on after broken

	phase     atomic.Int32
	ready     chan struct{}                   // closed: it can be written to, or has ended before
	connected atomic.Bool                     // Connect was sent
	drainAt   atomic.Pointer[time.Time]       // a Draining that is to be sent
	ended     atomic.Pointer[DisconnectError] // why it ends; set once
	cancel    atomic.Pointer[context.CancelFunc]
	upgrade   atomic.Pointer[upgrade]
	broken    atomic.Pointer[error] // the write error that the read loop may still find a better reason for
	credit    atomic.Int64          // messages that may be delivered, where opt.Active is set
	wake      chan struct{}         // capacity 1: credit, upgrade, broken or ended have changed; nil without opt.Active
	done      chan struct{}         // closed: it is over
	stats     connectionStats
}

// stream is what the TLS connection and the socket have in common.
type stream interface {
	net.Conn
	CloseWrite() error
}

func newConnection(opt *TCPConnectionOptions, server *tcpServer, sock *socket, worker gen.Atom) *tcpConnection {
	c := &tcpConnection{
		opt: opt, server: server, sock: sock, worker: worker, stream: sock,
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	if opt.Active > 0 {
		c.wake = make(chan struct{}, 1)
	}
	c.credit.Store(int64(opt.Active))
	c.inbox.opt = opt
	c.writer.init(opt.WriteBuffer, sock, c.writeFailed, c.inbox.recycle)
	c.stats.opened = time.Now()
	return c
}

// Init implements gen.MetaBehavior. It runs on the goroutine of whoever spawns the connection.
func (c *tcpConnection) Init(process gen.MetaProcess) error {
	c.process = process
	c.to, c.self = process.Parent(), process.ID()
	if c.worker != "" {
		c.to = c.worker
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
		c.process.Log().Warning("InsecureSkipVerify is set: the certificate of %s is not verified", c.sock.RemoteAddr())
	}
	if c.establish() {
		c.read()
	}
	// The reason went to the owner. To the engine every end of a connection is normal.
	return nil
}

// HandleMessage implements gen.MetaBehavior. What comes before the connection is established waits for that, so
// that nothing is written in the clear.
func (c *tcpConnection) HandleMessage(from gen.PID, message any) error {
	c.awaitReady()
	switch m := message.(type) {
	case MessageTCP:
		if err := c.write(m.Data); err != nil && !c.refusing {
			c.refusing = true
			c.process.Log().Debug("%d bytes from %s and all after them not taken: %s", len(m.Data), from, err)
		}
	case flushRequest:
		c.writer.flush()
	case MessageTCPActive:
		c.activate(m.N)
	case MessageTCPClose:
		c.end(ErrTerminated, nil)
	case MessageTCPCloseWrite:
		c.closeWrite()
	case MessageTCPStartTLS:
		c.startTLS(from, m.Reply)
	default:
		c.process.Log().Warning("unknown message from %s ignored: %T", from, message)
	}
	return nil
}

// HandleCall implements gen.MetaBehavior. A MessageTCP is answered when it was handed to the kernel, with the number of its bytes or
// an error as the result; the others when they are done.
func (c *tcpConnection) HandleCall(from gen.PID, _ gen.Ref, request any) (any, error) {
	m, ok := request.(MessageTCP)
	if !ok {
		return gen.ErrUnsupported, nil
	}
	c.awaitReady()
	size := len(m.Data)
	if _, err := c.take(m.Data); err != nil {
		return err, nil
	}
	if err := c.writer.sync(); err != nil {
		return err, nil
	}
	return size, nil
}

// awaitReady waits while a handshake is under way.
func (c *tcpConnection) awaitReady() {
	if !c.connected.Load() {
		<-c.ready
	}
	if up := c.upgrade.Load(); up != nil {
		select {
		case <-up.done:
		case <-c.done:
		}
	}
}

// Terminate implements gen.MetaBehavior. It ends the connection, in any phase, and returns when it has ended.
func (c *tcpConnection) Terminate(reason error) {
	if c.phase.CompareAndSwap(created, terminated) {
		c.sock.Close()
		c.leave()
		close(c.done)
		return
	}
	c.end(ErrTerminated, reason)
	<-c.done
}

// end ends the connection for a reason, and returns whether this was the first one. It may be called from any goroutine and does not block.
func (c *tcpConnection) end(reason, cause error) (first bool) {
	if !c.ended.CompareAndSwap(nil, &DisconnectError{Reason: reason, Cause: cause}) {
		return false
	}
	if cancel := c.cancel.Load(); cancel != nil {
		(*cancel)()
	}
	c.interrupt()
	return true
}

// interrupt makes the read loop look at what has changed.
func (c *tcpConnection) interrupt() {
	c.sock.SetReadDeadline(aLongTimeAgo)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// finish brings the connection to its end. It runs once, at the end of Start, also when that panics.
func (c *tcpConnection) finish() {
	c.end(ErrTerminated, gen.TerminateReasonPanic) // where nothing else ended it
	reason := c.ended.Load()
	c.writer.close()
	if up := c.upgrade.Swap(nil); up != nil {
		close(up.done)
	}
	if !c.established {
		close(c.ready)
	}
	c.sock.closeBy(time.Now().Add(c.opt.CloseTimeout))
	flushed := c.writer.sync()
	if flushed == nil && orderly(reason.Reason) && c.stream != stream(c.sock) {
		c.stream.CloseWrite() // close_notify; none after an alert
	}
	if c.release != nil {
		c.release()
	}
	if c.connected.Load() || c.server == nil {
		c.disconnected(reason)
	}
	if reason.Reason == ErrReset || flushed != nil || timeout(reason.Cause) {
		c.sock.Close()
	} else {
		c.sock.linger(lingerTimeout)
	}
	c.leave()
	c.inbox.discard()
	close(c.done)
}

// orderly says whether the TLS stream can be closed with close_notify: not where it has failed, after which
// crypto/tls has sent an alert of its own or the peer does not listen.
func orderly(reason error) bool {
	switch reason {
	case ErrProtocol, ErrRefused, ErrHandshake, ErrReset, ErrTruncated, ErrStartTLS:
		return false
	}
	return true
}

// disconnected tells the owner.
func (c *tcpConnection) disconnected(reason *DisconnectError) {
	told := *reason
	w := c.writer.stats()
	told.Accepted, told.Written = w.accepted, w.sent
	if err := c.process.Send(c.to, MessageTCPDisconnect{ID: c.process.ID(), Reason: &told}); err != nil {
		c.process.Log().Debug("connection with %s ended (%s); its owner %v was not told: %s", c.sock.RemoteAddr(), &told, c.to, err)
	}
}

// draining sends the Draining that drain has asked for, once, and not before Connect.
func (c *tcpConnection) draining() {
	if !c.connected.Load() {
		return
	}
	if deadline := c.drainAt.Swap(nil); deadline != nil {
		c.send(MessageTCPDraining{ID: c.process.ID(), Deadline: *deadline})
	}
}

// leave gives back what the server holds for this connection.
func (c *tcpConnection) leave() {
	if c.server != nil {
		c.server.left(c)
	}
}

// flushRequest is what a connection sends to itself behind the messages that are waiting: when it comes, they are collected.
type flushRequest struct{}

// write takes data for writing and sees to it that it is written.
func (c *tcpConnection) write(data []byte) error {
	schedule, err := c.take(data)
	if schedule && c.process.SendWithPriority(c.self, flushRequest{}, gen.MessagePriorityNormal) != nil {
		c.writer.flush() // the mailbox is full, or the parent has ended
	}
	return err
}

// take takes data for writing.
func (c *tcpConnection) take(data []byte) (schedule bool, err error) {
	if schedule, err = c.writer.write(data); err == nil {
		c.stats.messagesOut.Add(1)
		c.touch()
	}
	return schedule, err
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

func timeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
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
		c.process.Log().Debug("half-close failed: %s", err)
	}
}

func (c *tcpConnection) activate(n int) {
	if n < 1 || c.opt.Active == 0 {
		c.process.Log().Warning("MessageTCPActive{%d} ignored: N must be above 0, and the option Active be set", n)
		return
	}
	c.credit.Add(int64(min(n, 1<<31)))
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
