package meta_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// rawTCP gives the TCP connection below a peer's TLS.
func rawTCP(conn net.Conn) *net.TCPConn {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return conn.(*net.TCPConn)
}

// The peer's FIN and the last of several messages in quick succession come in one event of the
// poller, which is over when the message is read. Both sides of a connection find the FIN.
func TestEndComesWithMessage(t *testing.T) {
	t.Parallel()
	const active = 5
	end := func(t *testing.T, m mode, a *actor, id gen.Alias, peer net.Conn, another func()) {
		write := func(text string) {
			_, err := io.WriteString(peer, text)
			require.NoError(t, err)
		}
		for range active {
			write("more")
			assert.Equal(t, "more", string(expect[meta.MessageTCP](a).Data))
		}
		expect[meta.MessageTCPPassive](a) // nothing is read now
		write("last")
		require.NoError(t, rawTCP(peer).CloseWrite())
		another() // the poller reports what came before it
		expect[meta.MessageTCPConnect](a)
		a.send(id, meta.MessageTCPActive{N: 10})
		assert.Equal(t, "last", string(expect[meta.MessageTCP](a).Data))
		reason := meta.ErrTruncated
		if !m.tls() {
			reason = meta.ErrClosedByPeer
		}
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, reason)
	}
	t.Run("server", func(t *testing.T) {
		eachMode(t, func(t *testing.T, m mode) {
			a := newHost(t).spawn(nil)
			_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, Active: active})
			peer := m.dial(t, addr)
			id := expect[meta.MessageTCPConnect](a).ID
			end(t, m, a, id, peer, func() { m.dial(t, addr) })
		})
	})
	t.Run("client", func(t *testing.T) {
		tlsModes(t, func(t *testing.T, m mode) {
			a := newHost(t).spawn(nil)
			listener := tls.NewListener(newListener(t), m.manager.(manager).server)
			accept := func() net.Conn {
				a.connect(meta.TCPConnectionOptions{Port: portOf(t, listener.Addr().String()), CertManager: m.manager, Active: active})
				conn, err := listener.Accept()
				require.NoError(t, err)
				t.Cleanup(func() { conn.Close() })
				require.NoError(t, conn.(*tls.Conn).Handshake())
				return conn
			}
			peer := accept()
			id := expect[meta.MessageTCPConnect](a).ID
			end(t, m, a, id, peer, func() { accept() })
		})
	})
}

// Every end has its reason, and the reason comes once and last.
func TestReasons(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options meta.TCPServerOptions
		act     func(t *testing.T, a *actor, server gen.Alias, connection gen.Alias, peer net.Conn)
		reason  error
		plain   error // where it differs without TLS
	}{
		"closed by peer": {
			act:    func(_ *testing.T, _ *actor, _, _ gen.Alias, peer net.Conn) { peer.Close() },
			reason: meta.ErrClosedByPeer,
		},
		"truncated": {
			act:    func(_ *testing.T, _ *actor, _, _ gen.Alias, peer net.Conn) { rawTCP(peer).Close() },
			reason: meta.ErrTruncated, plain: meta.ErrClosedByPeer,
		},
		"reset": {
			act: func(_ *testing.T, _ *actor, _, _ gen.Alias, peer net.Conn) {
				rawTCP(peer).SetLinger(0)
				rawTCP(peer).Close()
			},
			reason: meta.ErrReset,
		},
		"garbage": {
			act: func(_ *testing.T, _ *actor, _, _ gen.Alias, peer net.Conn) {
				rawTCP(peer).Write([]byte("\x17\x03\x03\x00\x20this is no record that we can read"))
				rawTCP(peer).CloseWrite()
			},
			reason: meta.ErrProtocol, plain: meta.ErrClosedByPeer,
		},
		"idle": {
			options: meta.TCPServerOptions{IdleTimeout: 30 * time.Millisecond},
			act:     func(*testing.T, *actor, gen.Alias, gen.Alias, net.Conn) {},
			reason:  meta.ErrIdle,
		},
		"idle while passive": {
			options: meta.TCPServerOptions{IdleTimeout: 2 * time.Second, Active: 1}, // time for the peer to speak
			act: func(_ *testing.T, a *actor, _, _ gen.Alias, peer net.Conn) {
				peer.Write([]byte("x"))
				expect[meta.MessageTCP](a)
				expect[meta.MessageTCPPassive](a)
			},
			reason: meta.ErrIdle,
		},
		"slow consumer": {
			options: meta.TCPServerOptions{WriteTimeout: 50 * time.Millisecond, WriteBuffer: 64 << 20},
			act: func(_ *testing.T, a *actor, _, connection gen.Alias, _ net.Conn) {
				a.send(connection, meta.MessageTCP{Data: make([]byte, 32<<20)})
			},
			reason: meta.ErrSlowConsumer,
		},
		"frame too large": {
			options: meta.TCPServerOptions{Split: bufio.ScanLines, MaxFrame: 100},
			act:     func(_ *testing.T, _ *actor, _, _ gen.Alias, peer net.Conn) { peer.Write(make([]byte, 1000)) },
			reason:  meta.ErrFrameTooLarge,
		},
		"framing": {
			options: meta.TCPServerOptions{Split: func([]byte, bool) (int, []byte, error) { return 0, nil, errors.New("not ours") }},
			act:     func(_ *testing.T, _ *actor, _, _ gen.Alias, peer net.Conn) { peer.Write([]byte("x")) },
			reason:  meta.ErrFraming,
		},
		"terminated by a message": {
			act: func(_ *testing.T, a *actor, _, connection gen.Alias, _ net.Conn) {
				a.send(connection, meta.MessageTCPClose{})
			},
			reason: meta.ErrTerminated,
		},
		"terminated by an exit": {
			act: func(t *testing.T, a *actor, _, connection gen.Alias, _ net.Conn) {
				a.do(func(o *owner) { assert.NoError(t, o.SendExitMeta(connection, errors.New("enough"))) })
			},
			reason: meta.ErrTerminated,
		},
		"drained": {
			act: func(_ *testing.T, a *actor, server, connection gen.Alias, _ net.Conn) {
				a.send(server, meta.MessageTCPDrain{Timeout: 20 * time.Millisecond})
				assert.Equal(a.h.t, connection, expect[meta.MessageTCPDraining](a).ID)
			},
			reason: meta.ErrDrained,
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(nil)
				options := test.options
				options.CertManager = m.manager
				server, addr := a.listen(options)
				peer := m.dial(t, addr)
				connection := expect[meta.MessageTCPConnect](a).ID
				test.act(t, a, server, connection, peer)

				want := test.reason
				if !m.tls() && test.plain != nil {
					want = test.plain
					if name == "garbage" {
						expect[meta.MessageTCP](a)
					}
				}
				disconnect := expect[meta.MessageTCPDisconnect](a)
				assert.Equal(t, connection, disconnect.ID)
				assert.ErrorIs(t, disconnect.Reason, want)
				assert.ErrorAs(t, disconnect.Reason, new(*meta.DisconnectError))
				eventually(t, func() bool { return a.inspectAny(server)["connections"] != "1" }, "the slot is free")
				a.quiet()
			})
		})
	}
}

// A client that the server refuses hears it from Disconnect: at once in TLS 1.2, at its first read
// in TLS 1.3.
func TestRefusedByPeer(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			m := modes()[3]
			config := m.client.Clone()
			config.Certificates, config.MinVersion, config.MaxVersion = nil, version, version
			strict := m.manager.(manager).server.Clone()
			strict.MinVersion = tls.VersionTLS12
			h := newHost(t)
			server, client := h.spawn(nil), h.spawn(nil)
			_, addr := server.listen(meta.TCPServerOptions{CertManager: manager{server: strict}})
			client.connect(meta.TCPConnectionOptions{Port: portOf(t, addr), CertManager: manager{client: config}})
			if version == tls.VersionTLS13 {
				expect[meta.MessageTCPConnect](client)
			}
			disconnect := expect[meta.MessageTCPDisconnect](client)
			assert.ErrorIs(t, disconnect.Reason, meta.ErrRefused)
			client.quiet()
			server.quiet()
		})
	}
}

// What was accepted is written before the end, and the end is in order.
func TestCloseFlushes(t *testing.T) {
	ends := map[string]func(o *owner, id gen.Alias){
		"message": func(o *owner, id gen.Alias) { o.SendAlias(id, meta.MessageTCPClose{}) },
		"exit":    func(o *owner, id gen.Alias) { o.SendExitMeta(id, gen.TerminateReasonNormal) },
		"parent":  func(o *owner, id gen.Alias) { o.Node().SendExit(o.PID(), gen.TerminateReasonShutdown) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				h := newHost(t)
				a := h.spawn(nil)
				_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteBuffer: 64 << 20})
				peer := m.dial(t, addr)
				id := expect[meta.MessageTCPConnect](a).ID
				const size = 2 << 20
				// The Call makes sure that the messages before it were accepted.
				a.do(func(o *owner) {
					for range size / 1024 {
						o.SendAlias(id, meta.MessageTCP{Data: make([]byte, 1024)})
					}
					o.CallAlias(id, meta.MessageTCPClose{}, 5) // unsupported as a call: it only waits its turn
					end(o, id)
				})
				got, err := io.Copy(io.Discard, peer)
				require.NoError(t, err, "the peer must see the end in order")
				assert.EqualValues(t, size, got)
			})
		})
	}
}

// A peer that has stopped reading holds nobody for longer than CloseTimeout, and what it did not
// get is said.
func TestCloseIsBounded(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, WriteBuffer: 64 << 20, CloseTimeout: 50 * time.Millisecond})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		a.send(id, meta.MessageTCP{Data: make([]byte, 32<<20)})
		a.send(id, meta.MessageTCPClose{})
		disconnect := expect[meta.MessageTCPDisconnect](a)
		assert.ErrorIs(t, disconnect.Reason, meta.ErrTerminated)
		var reason *meta.DisconnectError
		require.ErrorAs(t, disconnect.Reason, &reason)
		assert.EqualValues(t, 32<<20, reason.Accepted)
		assert.Less(t, reason.Written, reason.Accepted)
		assert.ErrorContains(t, reason, "of 33554432 bytes written")
		got, _ := io.Copy(io.Discard, peer) // what the kernel still had
		assert.EqualValues(t, reason.Written, got, "what is said to be written can be read, and nothing else")
	})
}

// After a half-close the peer sees the end of our bytes, and we still read its own.
func TestCloseWrite(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		a.send(id, meta.MessageTCP{Data: []byte("last words")})
		a.send(id, meta.MessageTCPCloseWrite{})
		got, err := io.ReadAll(peer)
		require.NoError(t, err)
		assert.Equal(t, "last words", string(got))
		_, err = peer.Write([]byte("answer"))
		require.NoError(t, err)
		assert.Equal(t, "answer", string(expect[meta.MessageTCP](a).Data))
		var result any
		a.do(func(o *owner) { result, err = o.CallAlias(id, meta.MessageTCP{Data: []byte("too late")}, 5) })
		require.NoError(t, err)
		assert.ErrorContains(t, result.(error), "closed for writing")
		peer.Close()
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
	})
}

// A peer that half-closes behind its request still gets the whole answer that was sent before its
// end was read.
func TestPeerHalfCloses(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		_, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, CloseTimeout: testTimeout})
		peer := m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		_, err := io.WriteString(peer, "request")
		require.NoError(t, err)
		assert.Equal(t, "request", string(expect[meta.MessageTCP](a).Data))
		const size = 16 << 20 // more than the kernels hold
		a.send(id, meta.MessageTCP{Data: make([]byte, size)})
		eventually(t, func() bool { return a.inspect(id)["bytes waiting"] != "0" }, "the answer is under way")
		require.NoError(t, peer.(interface{ CloseWrite() error }).CloseWrite())
		got, err := io.Copy(io.Discard, peer)
		require.NoError(t, err)
		assert.EqualValues(t, size, got)
		var reason *meta.DisconnectError
		require.ErrorAs(t, expect[meta.MessageTCPDisconnect](a).Reason, &reason)
		assert.ErrorIs(t, reason, meta.ErrClosedByPeer)
		assert.EqualValues(t, size, reason.Written)
		eventually(t, func() bool { // the engine ends the meta process after its last message
			a.do(func(o *owner) { err = o.SendAlias(id, meta.MessageTCP{Data: []byte("too late")}) })
			return err != nil
		}, "the connection is gone")
	})
}

// The end of the server leaves its connections alone.
func TestConnectionsOutliveServer(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		server, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		a.do(func(o *owner) { o.SendExitMeta(server, gen.TerminateReasonNormal) })
		eventually(t, func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		}, "the port is closed")
		_, err := peer.Write([]byte("still here"))
		require.NoError(t, err)
		got := make([]byte, 10)
		_, err = io.ReadFull(peer, got)
		require.NoError(t, err)
		assert.Equal(t, "still here", string(got))
	})
}

// Drain as a call answers when all are gone, with how many it had to end.
func TestDrain(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		// Its owner closes the connection that it is told of first.
		first := true
		a := h.spawn(func(o *owner, message any) bool {
			d, ok := message.(meta.MessageTCPDraining)
			if ok && first {
				first = false
				o.SendAlias(d.ID, meta.MessageTCPClose{})
			}
			return false
		})
		driver := h.spawn(nil)
		server, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		for range 3 {
			m.dial(t, addr)
			expect[meta.MessageTCPConnect](a)
		}
		var result any
		var err error
		driver.do(func(o *owner) {
			result, err = o.CallAlias(server, meta.MessageTCPDrain{Timeout: 2 * time.Second}, 5) // time for the first to close
		})
		require.NoError(t, err)
		assert.Equal(t, 2, result)
		reasons := map[error]int{}
		for range 6 {
			select {
			case message := <-a.mail:
				if d, ok := message.(meta.MessageTCPDisconnect); ok {
					var reason *meta.DisconnectError
					require.ErrorAs(t, d.Reason, &reason)
					reasons[reason.Reason]++
				}
			case <-time.After(testTimeout):
				t.Fatal("messages are missing")
			}
		}
		assert.Equal(t, map[error]int{meta.ErrTerminated: 1, meta.ErrDrained: 2}, reasons)
		_, err = net.Dial("tcp", addr)
		assert.Error(t, err, "it accepts no more")
	})
}

// A drain and MaxLifetime end a connection in time also while it waits for an owner that is slow
// with thousands of messages.
func TestEndOfConnectionWithSlowOwner(t *testing.T) {
	t.Parallel()
	const messages, each = 10_000, 10 * time.Millisecond // the wait is for the answers to 2,700 of them
	for name, options := range map[string]meta.TCPServerOptions{"drain": {}, "MaxLifetime": {MaxLifetime: 300 * time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				h := newHost(t)
				started := make(chan struct{}, messages)
				a, driver := h.spawn(func(o *owner, message any) bool {
					m, ok := message.(meta.MessageTCP)
					if ok {
						started <- struct{}{}
						time.Sleep(each)
						o.SendAlias(m.ID, meta.MessageTCP{Data: []byte("answer\n")})
					}
					return ok
				}), h.spawn(nil)
				options := options
				options.CertManager, options.Split, options.CloseTimeout = m.manager, bufio.ScanLines, 50*time.Millisecond
				id, addr := a.listen(options)
				server := a.server
				peer := m.dial(t, addr)
				go io.Copy(io.Discard, peer)
				go io.WriteString(peer, strings.Repeat("x\n", messages))
				<-started
				began := time.Now()
				if name == "drain" {
					driver.do(func(o *owner) {
						_, err := o.CallAlias(id, meta.MessageTCPDrain{Timeout: 100 * time.Millisecond}, 25)
						assert.NoError(t, err)
					})
				}
				eventually(t, func() bool { return meta.Stats(server).Connections == 0 }, "the connection has ended")
				assert.Less(t, time.Since(began), 10*time.Second)
				assert.EqualValues(t, 1, meta.Stats(server).Ended[meta.ErrDrained.Error()])
			})
		})
	}
}
