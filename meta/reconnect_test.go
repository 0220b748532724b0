package meta_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func (m mode) reconnecting(_ *testing.T, addr string, again meta.Reconnect) meta.TCPConnectionOptions {
	options := meta.TCPConnectionOptions{Addrs: []string{addr}, Split: bufio.ScanLines, Reconnect: &again}
	if m.tls() {
		options.CertManager, options.ServerName = m.manager, "localhost"
	}
	return options
}

// until takes messages of an actor up to a T that fits.
func until[T any](a *actor, fits func(T) bool) T {
	a.h.t.Helper()
	for timeout := time.After(testTimeout); ; {
		select {
		case message := <-a.mail:
			if m, ok := message.(T); ok && fits(m) {
				return m
			}
		case <-timeout:
			var m T
			a.h.t.Fatalf("no fitting %T", m)
			return m
		}
	}
}

func always[T any](T) bool { return true }

// What is sent before there is a server is kept, in order, up to WriteBuffer, and the rest comes
// back.
func TestReconnectKeeps(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		server.stop()
		a := newHost(t).spawn(nil)
		options := m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond, Keep: true})
		options.WriteBuffer = 10
		id := a.connect(options)
		for _, text := range []string{"one\n", "two\n", "three\n", "4\n"} {
			a.send(id, meta.MessageTCP{Data: []byte(text)})
		}
		back := until(a, always[meta.MessageTCPUnsent])
		assert.Equal(t, "three\n", string(back.Data), "over the limit")
		assert.Equal(t, id, back.ID)
		failed := until(a, always[meta.MessageTCPDisconnect])
		assert.ErrorIs(t, failed.Reason, meta.ErrDial)
		assert.False(t, failed.Retry.IsZero())
		server.start()
		connect := until(a, always[meta.MessageTCPConnect])
		assert.Equal(t, id, connect.ID)
		for _, text := range []string{"one", "two", "4"} {
			assert.Equal(t, text, string(until(a, always[meta.MessageTCP]).Data))
		}
		a.send(id, meta.MessageTCPClose{})
		last := until(a, func(m meta.MessageTCPDisconnect) bool { return m.Retry.IsZero() })
		assert.ErrorIs(t, last.Reason, meta.ErrTerminated)
	})
}

// Without Keep nothing waits: a message comes back, a Call says why.
func TestReconnectRefuses(t *testing.T) {
	server := newLineServer(t, modes()[0])
	server.stop()
	a := newHost(t).spawn(nil)
	id := a.connect(modes()[0].reconnecting(t, server.addr, meta.Reconnect{MinInterval: testTimeout, MaxInterval: testTimeout}))
	until(a, always[meta.MessageTCPDisconnect])
	a.send(id, meta.MessageTCP{Data: []byte("hello\n")})
	assert.Equal(t, "hello\n", string(until(a, always[meta.MessageTCPUnsent]).Data))
	var result any
	var err error
	a.do(func(o *owner) { result, err = o.CallAlias(id, meta.MessageTCP{Data: []byte("hello\n")}, 5) })
	require.NoError(t, err)
	assert.Equal(t, meta.ErrNotConnected, result)
	info := a.inspect(id)
	assert.Equal(t, "waiting", info["state"])
	assert.Equal(t, "1", info["failures"])

	// A close while it waits is the end at once.
	a.send(id, meta.MessageTCPClose{})
	last := until(a, always[meta.MessageTCPDisconnect])
	assert.ErrorIs(t, last.Reason, meta.ErrTerminated)
	assert.True(t, last.Retry.IsZero())
	eventually(t, func() bool { return a.inspectAny(id) == nil }, "the meta process has ended")
}

// Addresses are tried in turn, and after MaxFailures it is over.
func TestReconnectAddresses(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		first, second := newLineServer(t, m), newLineServer(t, m)
		first.stop()
		a := newHost(t).spawn(nil)
		options := m.reconnecting(t, first.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond, MaxFailures: 4})
		options.Addrs = append(options.Addrs, second.addr)
		id := a.connect(options)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrDial)
		assert.Equal(t, second.addr, expect[meta.MessageTCPConnect](a).RemoteAddr.String())
		second.stop()
		tries := 0
		until(a, func(m meta.MessageTCPDisconnect) bool {
			tries++
			return m.Retry.IsZero()
		})
		assert.GreaterOrEqual(t, tries, 4)
		eventually(t, func() bool { return a.inspectAny(id) == nil }, "the meta process has ended")
	})
}

// A refusal that waiting does not mend is told at once, and the next try is late.
func TestReconnectWrongCA(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		other := tlstest.NewCA(t)
		a := newHost(t).spawn(nil)
		options := m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Hour})
		options.CertManager = manager{server: m.manager.(manager).server, client: &tls.Config{RootCAs: other.Pool()}}
		a.connect(options)
		refused := expect[meta.MessageTCPDisconnect](a)
		assert.ErrorIs(t, refused.Reason, meta.ErrHandshake)
		assert.Greater(t, time.Until(refused.Retry), 20*time.Minute)
	})
}

// Another address may have a server that is trusted, so it is tried soon. When all have been
// refused, the next try is late.
func TestReconnectWrongCAOfOneAddress(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		other := tlstest.NewCA(t)
		wrong := m
		wrong.manager = manager{server: other.ServerConfig(t), client: m.client}
		bad, down, good := newLineServer(t, wrong), newLineServer(t, m), newLineServer(t, m)
		down.stop()
		a := newHost(t).spawn(nil)
		options := m.reconnecting(t, bad.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Hour})
		options.Addrs = []string{bad.addr, down.addr, good.addr}
		a.connect(options)
		for range 2 { // also after the good one has ended
			refused := expect[meta.MessageTCPDisconnect](a)
			assert.ErrorIs(t, refused.Reason, meta.ErrHandshake)
			assert.Less(t, time.Until(refused.Retry), time.Minute)
			assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrDial)
			assert.Equal(t, good.addr, expect[meta.MessageTCPConnect](a).RemoteAddr.String())
			good.stop()
			expect[meta.MessageTCPDisconnect](a)
			good.start()
		}

		a = newHost(t).spawn(nil)
		options.Addrs = []string{bad.addr, bad.addr}
		a.connect(options)
		assert.Less(t, time.Until(expect[meta.MessageTCPDisconnect](a).Retry), time.Minute)
		assert.Greater(t, time.Until(expect[meta.MessageTCPDisconnect](a).Retry), 20*time.Minute)
	})
}

// A server that has no certificate at the moment is tried again soon.
func TestReconnectServerWithoutCertificate(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		broken := m
		config := m.manager.(manager).server.Clone()
		config.Certificates = nil
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("not yet") }
		broken.manager = manager{server: config, client: m.manager.(manager).client}
		server := newLineServer(t, broken)
		a := newHost(t).spawn(nil)
		a.connect(m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Hour}))
		for range 2 {
			assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrRefused)
		}
	})
}

// An exit ends it whatever it does, and what was kept comes back.
func TestReconnectEnds(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		a := newHost(t).spawn(nil)
		id := a.connect(m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: testTimeout, MaxInterval: testTimeout, Keep: true}))
		expect[meta.MessageTCPConnect](a)
		server.stop()
		expect[meta.MessageTCPDisconnect](a)
		a.send(id, meta.MessageTCP{Data: []byte("kept\n")})
		a.inspectAny(id) // it has the message: an exit drops what still waits in the mailbox
		a.do(func(o *owner) { require.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
		assert.Equal(t, "kept\n", string(until(a, always[meta.MessageTCPUnsent]).Data))
		assert.True(t, until(a, always[meta.MessageTCPDisconnect]).Retry.IsZero())

		server.start()
		id = a.connect(m.reconnecting(t, server.addr, meta.Reconnect{}))
		expect[meta.MessageTCPConnect](a)
		a.do(func(o *owner) { require.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
		assert.True(t, expect[meta.MessageTCPDisconnect](a).Retry.IsZero())
	})
}

// Several addresses work without Reconnect too: the first that answers is taken.
func TestAddrs(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		down, server := newLineServer(t, m), newLineServer(t, m)
		down.stop()
		a := newHost(t).spawn(nil)
		options := m.reconnecting(t, down.addr, meta.Reconnect{})
		options.Reconnect, options.Addrs = nil, []string{down.addr, server.addr}
		a.connect(options)
		assert.Equal(t, server.addr, expect[meta.MessageTCPConnect](a).RemoteAddr.String())
		options.Addrs = []string{down.addr, down.addr}
		_, err := meta.CreateTCPConnection(options)
		require.ErrorIs(t, err, meta.ErrDial)
		assert.ErrorContains(t, err, down.addr)
	})
	for _, addr := range []string{"", "localhost", ":5432", "localhost:0", "localhost:70000", "localhost:http"} {
		_, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Addrs: []string{addr}})
		require.ErrorIs(t, err, meta.ErrOption, addr)
		assert.ErrorContains(t, err, "Addrs[0]")
	}
	_, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Addrs: []string{"localhost:1"}, Port: 1})
	require.ErrorIs(t, err, meta.ErrOption)
	_, err = meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1, Reconnect: &meta.Reconnect{MinInterval: time.Hour, MaxInterval: time.Minute}})
	assert.ErrorContains(t, err, "Reconnect.MinInterval")
	_, err = meta.CreateTCPConnection(meta.TCPConnectionOptions{Port: 1, StartTLS: true, Active: 1, CertManager: modes()[1].manager, Reconnect: &meta.Reconnect{}})
	assert.ErrorContains(t, err, "Reconnect: can't be combined with StartTLS")
}

// An owner whose mailbox is full loses the connection, and gets another one.
func TestReconnectOwnerWithoutRoom(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		h := newHost(t)
		busy := make(chan struct{})
		a, sender := h.spawn(nil, gen.ProcessOptions{MailboxSize: 5}), h.spawn(nil)
		id := a.connect(m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond}))
		until(a, always[meta.MessageTCPConnect])
		require.NoError(t, h.Send(a.pid, run(func(*owner) { <-busy })))
		for range 10 {
			sender.send(id, meta.MessageTCP{Data: []byte("hello\n")})
		}
		eventually(t, func() bool { return strings.Contains(sender.inspect(id)["last end"], "owner gone") }, "it has ended")
		close(busy)
		ended := until(a, always[meta.MessageTCPDisconnect])
		assert.ErrorIs(t, ended.Reason, meta.ErrOwnerGone)
		assert.False(t, ended.Retry.IsZero())
		until(a, always[meta.MessageTCPConnect])
	})
}

// What the owner sends when it hears of a connection is written to that connection.
func TestReconnectAnswersConnect(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		a := newHost(t).spawn(func(o *owner, message any) bool {
			if m, ok := message.(meta.MessageTCPConnect); ok {
				o.SendAlias(m.ID, meta.MessageTCP{Data: []byte("hello\n")})
				return true
			}
			return false
		})
		a.connect(m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond}))
		for range 20 {
			answer := until(a, func(message any) bool { _, ended := message.(meta.MessageTCPDisconnect); return !ended })
			require.IsType(t, meta.MessageTCP{}, answer)
			server.stop()
			server.start()
		}
	})
}

// A handshake that fails is a failure also if it takes longer than MaxInterval: after MaxFailures
// it is over.
func TestReconnectToSilentServer(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		silent := newListener(t)
		defer silent.Close()
		options := m.reconnecting(t, silent.Addr().String(), meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: 5 * time.Millisecond, MaxFailures: 2})
		options.HandshakeTimeout = 20 * time.Millisecond
		a.connect(options)
		for try := range 3 {
			failed := expect[meta.MessageTCPDisconnect](a)
			assert.ErrorIs(t, failed.Reason, meta.ErrHandshake)
			assert.Equal(t, try == 2, failed.Retry.IsZero(), "failure %d", try+1)
		}
	})
}

// An owner whose mailbox is full hears of the end when it has room: of attempts that fail until
// MaxFailures, and of a close between two attempts.
func TestReconnectEndsWithoutRoom(t *testing.T) {
	for name, again := range map[string]meta.Reconnect{
		"MaxFailures": {MinInterval: time.Millisecond, MaxInterval: time.Millisecond, MaxFailures: 1},
		"close":       {MinInterval: time.Hour, MaxInterval: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newLineServer(t, modes()[0])
			server.stop()
			h := newHost(t)
			parent, worker := h.spawn(nil), h.spawnNamed("worker", nil, gen.ProcessOptions{MailboxSize: 1})
			started, busy := make(chan struct{}), make(chan struct{})
			fill := func() {
				require.NoError(t, h.Send(worker.pid, run(func(*owner) { close(started); <-busy })))
				<-started
				require.NoError(t, h.Send(worker.pid, run(func(*owner) {})))
			}
			options := modes()[0].reconnecting(t, server.addr, again)
			options.Process = "worker"
			if name == "MaxFailures" {
				fill()
			}
			id := parent.connect(options)
			if name == "close" {
				until(worker, always[meta.MessageTCPDisconnect])
				fill()
				parent.send(id, meta.MessageTCPClose{})
			}
			time.Sleep(50 * time.Millisecond) // in which it would end without a word
			close(busy)
			until(worker, func(m meta.MessageTCPDisconnect) bool { return m.Retry.IsZero() })
			eventually(t, func() bool { return parent.inspectAny(id) == nil }, "the meta process has ended")
			worker.quiet()
		})
	}
}

// If no process has the name of the owner, the connection ends for good, with Node and without.
func TestReconnectWithoutOwner(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		for _, looksUp := range []bool{false, true} {
			server := newLineServer(t, m)
			h := newHost(t)
			a := h.spawn(nil)
			options := m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond})
			options.Process = "nobody"
			if looksUp {
				options.Node = h.Node
			}
			id := a.connect(options)
			eventually(t, func() bool { return a.inspectAny(id) == nil }, "the meta process has ended")
			eventually(t, h.log.contains("ended (owner gone: "), "the log says why")
		}
	})
}
