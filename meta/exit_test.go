package meta_test

import (
	"bufio"
	"errors"
	"io"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// busy waits until the message goroutine of a connection waits for the peer.
func (a *actor) busy(id gen.Alias) {
	a.h.t.Helper()
	eventually(a.h.t, func() bool {
		info, err := a.h.MetaInfo(id)
		require.NoError(a.h.t, err)
		return info.State == gen.MetaStateRunning
	}, "it handles a message")
}

// stalled gives a connection to whose peer nothing more can be written, while its message goroutine
// has something to write.
func stalled(t *testing.T, m mode, a *actor) (id gen.Alias) {
	t.Helper()
	server, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteTimeout: 2 * testTimeout, CloseTimeout: 50 * time.Millisecond})
	m.dial(t, addr)
	id = expect[meta.MessageTCPConnect](a).ID
	a.send(id, meta.MessageTCP{Data: make([]byte, 32<<20)})
	eventually(t, func() bool { return a.inspect(server, id.String())["bytes waiting"] > "0" }, "it is accepted")
	a.send(id, meta.MessageTCP{Data: make([]byte, 1<<20)}) // has no room
	a.busy(id)
	return id
}

// exit asks a connection to end. Ergo 3.1 tells it of that only when it has handled its message,
// which its own timeouts bound: there is nothing to be seen of that within a test's testTimeout.
func (a *actor) exit(t *testing.T, id gen.Alias, reason error) {
	t.Helper()
	a.do(func(o *owner) { assert.NoError(t, o.SendExitMeta(id, reason)) })
	if _, err := a.h.MetaInfo(id); err == nil {
		t.Skip("with this engine an exit waits for the message that is being handled")
	}
}

// An exit ends a connection within CloseTimeout also while a message to it waits for a peer that
// does not read.
func TestExitIsBounded(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		id := stalled(t, m, a)
		a.exit(t, id, errors.New("enough"))
		disconnect := expect[meta.MessageTCPDisconnect](a)
		assert.ErrorIs(t, disconnect.Reason, meta.ErrTerminated)
		assert.ErrorContains(t, disconnect.Reason, "of 33554432 bytes written")
	})
}

// And so does the end of the node.
func TestStopIsBounded(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		stalled(t, m, h.spawn(nil))
		stopped := make(chan struct{})
		go func() {
			h.Stop()
			close(stopped)
		}()
		select {
		case <-stopped:
		case <-time.After(testTimeout):
			t.Fatal("a peer that does not read holds up the node")
		}
	})
}

// And the end of its owner, of which Ergo tells it no sooner.
func TestOwnerEndIsBounded(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		stalled(t, m, a)
		server := a.server
		require.EqualValues(t, 1, meta.Stats(server).Connections)
		require.NoError(t, a.h.SendExit(a.pid, gen.TerminateReasonShutdown))
		eventually(t, func() bool { return meta.Stats(server).Connections == 0 }, "the connection ends")
	})
}

// So it does while a Call waits.
func TestExitEndsCall(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		a, caller := h.spawn(nil), h.spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteTimeout: 2 * testTimeout, CloseTimeout: 50 * time.Millisecond})
		m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		answer := make(chan any, 1)
		require.NoError(t, h.Send(caller.pid, run(func(o *owner) {
			result, err := o.CallAlias(id, meta.MessageTCP{Data: make([]byte, 32<<20)}, 15)
			if err != nil {
				result = err
			}
			answer <- result
		})))
		a.busy(id)
		a.exit(t, id, gen.TerminateReasonNormal)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
		assert.Error(t, (<-answer).(error), "it must not be taken for written")
	})
}

// And while what was sent waits for a handshake that does not come, the first or that of StartTLS.
func TestExitDuringHandshake(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		mute := newListener(t)
		defer mute.Close()
		id := a.connect(meta.TCPConnectionOptions{
			Host: "127.0.0.1", Port: portOf(t, mute.Addr().String()), CertManager: m.manager,
			HandshakeTimeout: 2 * testTimeout, CloseTimeout: 50 * time.Millisecond,
		})
		a.send(id, meta.MessageTCP{Data: []byte("waits")})
		a.busy(id)
		a.exit(t, id, gen.TerminateReasonNormal)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)

		options := startTLSServer(m)
		options.HandshakeTimeout, options.CloseTimeout = 2*testTimeout, 50*time.Millisecond
		_, addr := a.listen(options)
		peer := dialTCP(t, addr)
		id = expect[meta.MessageTCPConnect](a).ID
		exchange(t, a, peer, "STARTTLS")
		a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
		_, err := bufio.NewReader(io.LimitReader(peer, 9)).ReadString('\n')
		require.NoError(t, err)
		a.send(id, meta.MessageTCP{Data: []byte("waits")})
		a.busy(id)
		a.exit(t, id, gen.TerminateReasonNormal)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrTerminated)
	})
}

// And while the last words before an upgrade wait for a peer that does not read. A drain does not
// wait for longer either.
func TestEndBeforeUpgradeIsBounded(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		for _, drains := range []bool{false, true} {
			h := newHost(t)
			a, driver := h.spawn(nil), h.spawn(nil)
			options := startTLSServer(m)
			options.WriteTimeout, options.CloseTimeout = 2*testTimeout, 50*time.Millisecond
			server, addr := a.listen(options)
			peer := dialTCP(t, addr)
			id := expect[meta.MessageTCPConnect](a).ID
			exchange(t, a, peer, "STARTTLS")
			a.send(id, meta.MessageTCP{Data: make([]byte, 32<<20)})
			a.send(id, meta.MessageTCPStartTLS{Reply: []byte("go ahead\n")})
			eventually(t, func() bool { return a.inspect(server, id.String())["bytes waiting"] > "0" }, "it is accepted")
			reason := meta.ErrTerminated
			if drains {
				reason = meta.ErrDrained
				driver.do(func(o *owner) { assert.NoError(t, o.SendAlias(server, meta.MessageTCPDrain{})) })
			} else {
				a.exit(t, id, gen.TerminateReasonNormal)
			}
			for {
				message := <-a.mail
				if _, draining := message.(meta.MessageTCPDraining); !draining {
					assert.ErrorIs(t, message.(meta.MessageTCPDisconnect).Reason, reason)
					break
				}
			}
		}
	})
}
