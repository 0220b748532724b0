package meta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ergo.services/ergo/gen"
)

// startTLS passes the upgrade to the read loop. The next message waits for the upgrade, so that
// nothing is written meanwhile.
func (c *tcpConnection) startTLS(from gen.PID, m MessageTCPStartTLS) {
	if !c.opt.StartTLS || c.stats.tls.Load() != nil {
		c.log().Warning("MessageTCPStartTLS from %s ignored: the option StartTLS is not set, or the connection is over TLS already", from)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.upgrade = &m
	c.interruptLocked()
}

// runUpgrade performs the upgrade on the read loop's goroutine.
func (c *tcpConnection) runUpgrade() {
	reply := c.upgrade.Reply // no other upgrade is set until this one is cleared
	defer func() {
		if c.view().reason != nil {
			c.writer.close() // messages that wait for the upgrade must not be written in the clear
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.upgrade = nil
		c.changed.broadcast()
	}()
	if err := c.checkEarly(); err != nil {
		c.end(ErrStartTLS, err)
		return
	}
	if err := c.writeLast(reply); errors.Is(err, errWriteClosed) {
		c.end(ErrStartTLS, err)
		return
	} else if err != nil {
		return // the failed write ends the connection
	}
	state, err := c.handshake(time.Now().Add(c.opt.HandshakeTimeout))
	if err != nil {
		c.refused("StartTLS handshake", err)
		return
	}
	c.writer.setOut(c.stream)
	c.send(MessageTCPSecured{ID: c.process.ID(), TLS: state, Peer: c.peer(state)})
}

// writeLast writes what was accepted, and the last bytes in the clear. If the connection ends
// meanwhile, CloseTimeout limits it.
func (c *tcpConnection) writeLast(reply []byte) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := c.cancelBy(cancel); err != nil {
		return err
	}
	defer c.cancelBy(nil)
	defer context.AfterFunc(ctx, func() { c.sock.closeBy(time.Now().Add(c.opt.CloseTimeout)) })()
	if err := c.writer.write(MessageTCP{Data: reply}, synced); err != nil {
		return err
	}
	return c.writer.sync()
}

// checkEarly makes sure that no bytes have arrived that would be mistaken for bytes received over
// TLS.
func (c *tcpConnection) checkEarly() error {
	early := c.inbox.end - c.inbox.start
	if early == 0 && c.inbox.err == nil {
		var one [1]byte
		early, c.inbox.err = c.sock.peek(one[:])
	}
	if early > 0 {
		return fmt.Errorf("bytes in the clear came before the upgrade")
	}
	if c.inbox.err == io.EOF {
		return fmt.Errorf("the peer closed before the upgrade")
	}
	return c.inbox.err
}
