package meta

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"ergo.services/ergo/gen"
)

// A connection with Reconnect has the goroutines of a tcpConnection: Start's dials, waits, and runs
// one connection after the other.

// reconnecting is the meta process of an outgoing connection with Reconnect. It has one
// tcpConnection at a time.
type reconnecting struct {
	behavior

	// Set by newReconnecting, and not changed after it.
	opt     *TCPConnectionOptions
	targets []target
	ctx     context.Context // done when no further connection is to be made
	cancel  context.CancelFunc
	done    chan struct{} // closed when Start has returned or will never run

	started sync.Once
	tries   int // dials so far, to choose the next address; used by Start's goroutine
	outbox  outbox

	mu       sync.Mutex     // guards all below
	to       any            // the owner; set by Init and setOwner
	conn     *tcpConnection // being established, or in use; set by Start's goroutine, as all below
	up       bool           // conn takes messages
	failures int            // in a row
	rejected int            // permanent failures in a row
	retryAt  time.Time      // of the next attempt; zero: there is none
	last     error          // why the last connection ended or was not made
}

// target is an address to connect to.
type target struct {
	network, address string
	tls              *tls.Config
}

func newReconnecting(opt *TCPConnectionOptions, targets []target) *reconnecting {
	r := &reconnecting{opt: opt, targets: targets, done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Init implements gen.MetaBehavior.
func (r *reconnecting) Init(process gen.MetaProcess) error {
	r.process, r.to = process, ownerOf(process, r.opt.Process)
	return nil
}

// Start implements gen.MetaBehavior.
func (r *reconnecting) Start() error {
	r.started.Do(func() {
		defer close(r.done)
		for r.once() {
		}
		r.cancel()
		r.mu.Lock()
		told := r.retryAt.IsZero() && r.last != nil
		r.retryAt = time.Time{}
		r.mu.Unlock()
		if !told { // the owner still expects another attempt
			r.giveBack()
			r.tell(&DisconnectError{Reason: ErrTerminated}, time.Time{})
		}
	})
	return nil
}

// once makes one connection, runs it until it ends, and waits until the next is due. It returns
// false if there is no next one.
func (r *reconnecting) once() bool {
	t := r.targets[r.tries%len(r.targets)]
	r.tries++
	sock, err := dial(r.ctx, t, r.opt)
	if err != nil {
		reason := &DisconnectError{Reason: ErrDial, Cause: err}
		if r.ctx.Err() != nil || !r.tell(reason, r.plan(reason, false)) {
			return false
		}
	} else {
		c := newConnection(r.opt, nil, sock, nil)
		c.clientTLS = t.tls
		var established time.Time
		c.onConnect = func() {
			established = time.Now()
			r.use()
		}
		c.onEnd = func(reason *DisconnectError) time.Time {
			lasted := !established.IsZero() && time.Since(established) > r.opt.Reconnect.MaxInterval
			return r.plan(reason, lasted || c.stats.messagesIn.Load() > 0)
		}
		_ = c.Init(r.process) // never fails
		r.mu.Lock()
		c.to, r.conn = r.to, c
		r.mu.Unlock()
		if r.ctx.Err() != nil { // Terminate may have looked for a connection before
			c.Terminate(nil)
		}
		_ = c.Start()                 // always nil: the owner got the reason
		removeFields(r.process.Log()) // the next connection adds its own
		r.mu.Lock()
		if r.conn = nil; !r.retryAt.IsZero() { // else its Disconnect was the last message
			_ = c.changeOwner() // if MessageTCPOwner came after its Disconnect
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	at := r.retryAt
	r.mu.Unlock()
	if at.IsZero() {
		return false
	}
	select {
	case <-time.After(time.Until(at)):
		return true
	case <-r.ctx.Done():
		return false
	}
}

// use directs messages to the connection once it is established.
func (r *reconnecting) use() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up = true
	r.sendSelf()
}

// sendSelf sends a pumpRequest. If the mailbox is full, the next message pumps instead.
func (r *reconnecting) sendSelf() { _ = r.process.Send(r.process.ID(), pumpRequest{}) }

// tell sends a Disconnect to the owner. If the owner's mailbox is full it waits for room, as
// tcpConnection.finish does. It returns false if the owner has ended.
func (r *reconnecting) tell(reason *DisconnectError, retry time.Time) bool {
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		r.mu.Lock()
		to := r.to
		r.mu.Unlock()
		err := r.process.Send(to, MessageTCPDisconnect{ID: r.process.ID(), Reason: reason, Retry: retry})
		if !errors.Is(err, gen.ErrProcessMailboxFull) {
			return !unreachable(err)
		}
		time.Sleep(wait)
	}
}

// setOwner makes a process the owner of this connection and of later ones.
func (r *reconnecting) setOwner(from, pid gen.PID) {
	r.mu.Lock() // held throughout: a connection that ends reads the requested owner
	defer r.mu.Unlock()
	before := r.to
	owner := before
	if name, named := before.(gen.Atom); named && r.opt.Node != nil {
		owner, _ = lookUp(r.opt.Node, name) // on error no process is the owner, so only the parent may pass it
	}
	if err := r.opt.mayPass(owner, r.process.Parent(), from, pid); err != nil {
		warnOwner(r.process, from, pid, err)
		return
	}
	r.to = pid
	if r.conn != nil {
		r.conn.setOwner(from, pid)
	} else if before != any(pid) {
		_ = r.process.Send(before, MessageTCPOwner{PID: pid, ID: r.process.ID()}) // on error the previous owner has ended
	}
}

// current returns the connection, and whether it accepts messages.
func (r *reconnecting) current() (c *tcpConnection, up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn, r.up
}

// plan records why a connection ended or was not made, and returns when the next is due. Zero means
// that there is no next one; then no message is kept. A useful connection resets the count of
// failures.
func (r *reconnecting) plan(reason *DisconnectError, useful bool) time.Time {
	retry := r.nextTry(reason, useful)
	if retry.IsZero() {
		r.giveBack()
	} else {
		r.sendSelf()
	}
	return retry
}

func (r *reconnecting) nextTry(reason *DisconnectError, useful bool) time.Time {
	o := r.opt.Reconnect
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.last, r.retryAt = false, reason, time.Time{}
	if useful && !permanent(reason) {
		r.failures = 0
	}
	r.failures++
	r.rejected++
	if !permanent(reason) {
		r.rejected = 0
	}
	tooMany := o.MaxFailures > 0 && r.failures > o.MaxFailures
	if r.ctx.Err() != nil || reason.Reason == ErrTerminated || reason.Reason == ErrOwnerGone && unreachable(reason.Cause) || tooMany {
		r.cancel()
		return r.retryAt
	}
	wait := o.MaxInterval
	if doubled := o.MinInterval << min(r.failures-1, 30); doubled > 0 && r.rejected < len(r.targets) { // else it overflowed
		wait = min(wait, doubled)
	}
	r.retryAt = time.Now().Add(wait - rand.N(wait/2+1))
	return r.retryAt
}

// permanent reports whether an early retry is useless, because one side does not accept the other's
// certificate. A server that has no certificate yet sends internal_error, which is not permanent.
func permanent(reason *DisconnectError) bool {
	refused := reason.Reason == ErrRefused && !strings.HasSuffix(reason.Cause.Error(), "internal error")
	return refused || isA[*tls.CertificateVerificationError](reason.Cause) || isA[x509.HostnameError](reason.Cause)
}

// HandleMessage implements gen.MetaBehavior.
func (r *reconnecting) HandleMessage(from gen.PID, message any) error {
	c, up := r.current()
	switch m := message.(type) {
	case MessageTCP:
		r.write(keptMessage{from: from, data: m.Data})
	case pumpRequest:
		r.pump()
	case MessageTCPOwner:
		r.setOwner(from, m.PID)
	case MessageTCPClose:
		r.pump()
		r.cancel()
		if c, _ := r.current(); c != nil { // which may have changed by now
			c.end(ErrTerminated, nil)
		}
	case flushRequest, catchUp: // from this connection, or from one that has ended
		if up {
			_ = c.HandleMessage(from, m) // never fails
		}
		r.pump()
	default:
		if up {
			return c.HandleMessage(from, m)
		}
		r.process.Log().Warning("%T from %s ignored: there is no connection at the moment", message, from)
	}
	return nil
}

// HandleCall implements gen.MetaBehavior.
func (r *reconnecting) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	r.pump()
	if c, up := r.current(); up {
		return c.HandleCall(from, ref, request)
	}
	return ErrNotConnected, nil
}

// Terminate implements gen.MetaBehavior. It returns when the connection has ended.
func (r *reconnecting) Terminate(reason error) {
	r.cancel()
	if c, _ := r.current(); c != nil {
		c.Terminate(reason)
	}
	r.started.Do(func() { close(r.done) })
	<-r.done
}

// HandleInspect implements gen.MetaBehavior.
func (r *reconnecting) HandleInspect(from gen.PID, item ...string) map[string]string {
	r.outbox.mu.Lock()
	kept := r.outbox.size
	r.outbox.mu.Unlock()
	r.mu.Lock()
	c, failures, at, last := r.conn, r.failures, r.retryAt, r.last
	r.mu.Unlock()
	m := map[string]string{"state": "connecting"}
	if c != nil {
		m = c.HandleInspect(from, item...)
	} else if !at.IsZero() {
		m["state"] = "waiting"
		m["next try"] = "in " + time.Until(at).Round(time.Millisecond).String()
	}
	m["bytes kept"], m["failures"] = strconv.Itoa(kept), strconv.Itoa(failures)
	if last != nil {
		m["last end"] = last.Error()
	}
	return m
}
