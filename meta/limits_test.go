package meta_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// talk sends a line to an echo server and wants it back.
func talk(t *testing.T, peer net.Conn) {
	t.Helper()
	_, err := io.WriteString(peer, "hello")
	require.NoError(t, err)
	got := make([]byte, 5)
	_, err = io.ReadFull(peer, got)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(got))
}

// The wait for a slot is the limit: who comes later is served when somebody has left, and nobody is
// turned away.
func TestMaxConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, MaxConnections: 3})
		var peers []net.Conn
		for range 3 {
			peers = append(peers, m.dial(t, addr))
			expect[meta.MessageTCPConnect](a)
		}
		late := dialTCP(t, addr)
		for range 20 {
			dialTCP(t, addr)
		}
		eventually(t, func() bool { return a.inspect(id)["connections"] == "3" }, "it counts them when their Connects are sent")
		assert.Equal(t, "3", a.inspect(id)["max connections"])
		peers[0].Close()
		expect[meta.MessageTCPDisconnect](a)
		m.secure(t, late)
		assert.Equal(t, late.LocalAddr().String(), expect[meta.MessageTCPConnect](a).RemoteAddr.String())
		a.quiet()
		assert.Equal(t, "4", a.inspect(id)["connections total"], "one has left, so one came in")
	})
}

func TestMaxConnectionsPerAddress(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, MaxConnectionsPerAddress: 1})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		second := dialTCP(t, addr)
		_, err := second.Read(make([]byte, 1))
		assert.Error(t, err)
		assert.False(t, errors.Is(err, os.ErrDeadlineExceeded))
		a.quiet()
		assert.Equal(t, "1", a.inspect(id)["over limit"])
		peer.Close()
		expect[meta.MessageTCPDisconnect](a)
		eventually(t, func() bool { return a.inspect(id)["connections"] == "0" }, "it has left")
		m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
	})
}

// Who fails too often is not listened to for the rest of the minute.
func TestMaxHandshakeFailures(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, MaxHandshakeFailures: 2})
		for range 2 {
			tlstest.Garbage(dialTCP(t, addr), nil, testTimeout)
		}
		eventually(t, func() bool { return a.inspect(id)["handshake failures"] == "2" }, "both are counted")
		require.Error(t, tls.Client(dialTCP(t, addr), m.client).Handshake())
		assert.Equal(t, "1", a.inspect(id)["over limit"])
		a.quiet()
	})
}

// Peers that misbehave before or in the handshake never reach the actor, cost a slot for no longer
// than HandshakeTimeout, and hold up nobody; those that misbehave later end with a reason.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	tlsModes(t, func(t *testing.T, m mode) {
		for _, hostile := range tlstest.HostileClients {
			t.Run(hostile.Name, func(t *testing.T) {
				t.Parallel()
				a := newHost(t).spawn(echo)
				id, addr := a.listen(meta.TCPServerOptions{
					CertManager: m.manager, HandshakeTimeout: 2 * time.Second, WriteTimeout: time.Second, // time for a peer of good will
					// A peer that does not read what its kernel has no memory for may lose our
					// acknowledgements too. Then nothing arrives and nothing waits to be written.
					IdleTimeout:   2 * time.Second,
					MaxHandshakes: 1, ConnectionMeta: gen.MetaOptions{MailboxSize: 1000},
				})
				conn := dialTCP(t, addr)
				visited := make(chan error, 1)
				go func() {
					_, err := hostile.Visit(conn, m.client, testTimeout)
					visited <- err
				}()
				switch hostile.Name {
				case "silent", "half a ClientHello", "one byte a second":
					peer := m.dial(t, addr) // while the other holds its connection
					talk(t, peer)
					peer.Close()
					expect[meta.MessageTCPConnect](a)
					assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrClosedByPeer)
				}
				if err := <-visited; hostile.Name != "never reads" { // whose kernel may have no memory for our FIN either
					assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it was held")
				}
				eventually(t, func() bool {
					inspect := a.inspect(id)
					return inspect["connections"] == "0" && inspect["connections establishing"] == "0"
				}, "nothing is left of it")
				a.do(func(*owner) {}) // behind what was sent to it before
				for connects := 0; ; {
					select {
					case message := <-a.mail:
						if _, ok := message.(meta.MessageTCPConnect); ok {
							connects++
							continue
						}
						assert.ErrorAs(t, message.(meta.MessageTCPDisconnect).Reason, new(*meta.DisconnectError))
						connects--
						continue
					default:
					}
					assert.Zero(t, connects, "one Disconnect for each Connect")
					break
				}
			})
		}
	})
}

// 2,000 connections that never say a word take nothing from those that do: in the clear, where
// there is no handshake, they owe a PROXY header.
func TestMuteCrowd(t *testing.T) {
	for _, m := range modes() { // one after the other: there are only so many descriptors
		t.Run(m.name, func(t *testing.T) { testMuteCrowd(t, m) })
	}
}

func testMuteCrowd(t *testing.T, m mode) {
	const crowd = 2000
	const header = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
	a := newHost(t).spawn(echo)
	id, addr := a.listen(meta.TCPServerOptions{
		CertManager: m.manager, HandshakeTimeout: time.Minute, CloseTimeout: time.Second,
		ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	var conns []net.Conn
	for i := range crowd {
		conns = append(conns, dialTCP(t, addr))
		if m.tls() && i%2 == 0 {
			io.WriteString(conns[i], header) // and no handshake
		}
	}
	eventually(t, func() bool { return a.inspect(id)["connections establishing"] == strconv.Itoa(crowd) }, "all are there")
	for range 20 {
		conn := dialTCP(t, addr)
		io.WriteString(conn, header)
		peer := m.secure(t, conn)
		talk(t, peer)
		peer.Close()
		expect[meta.MessageTCPConnect](a)
		expect[meta.MessageTCPDisconnect](a)
	}
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, func() bool { return a.inspect(id)["connections establishing"] == "0" }, "all are gone")
	assert.Equal(t, strconv.Itoa(crowd), a.inspect(id)["refused"])
	a.quiet()
	assert.Less(t, strings.Count(a.h.log.String(), "[warning]"), 20, "strangers must not fill the log")
}

func TestSharedPort(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		options := meta.TCPServerOptions{CertManager: m.manager, ReusePort: true, Host: "127.0.0.1"}
		first, addr := a.listen(options)
		options.Port = portOf(t, addr)
		second, shared := a.listen(options)
		assert.Equal(t, addr, shared)
		eventually(t, func() bool {
			talk(t, m.dial(t, addr))
			return a.inspect(first)["connections total"] != "0" && a.inspect(second)["connections total"] != "0"
		}, "the kernel gives some to each")
		options.ReusePort = false
		_, err := meta.CreateTCPServer(options)
		assert.ErrorIs(t, err, meta.ErrListen)
		assert.ErrorContains(t, err, fmt.Sprint(options.Port))
	})
}

// A listener that another program has opened, as systemd or a predecessor hands it over.
func TestInheritedListener(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		original, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		file, err := original.(*net.TCPListener).File()
		require.NoError(t, err)
		addr := original.Addr().String()
		require.NoError(t, original.Close())
		inherited, err := net.FileListener(file)
		require.NoError(t, err)
		file.Close()
		_, got := newHost(t).spawn(echo).listen(meta.TCPServerOptions{CertManager: m.manager, Listener: inherited})
		assert.Equal(t, addr, got)
		talk(t, m.dial(t, addr))
	})
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, m mode) {
		dir, err := os.MkdirTemp("", "unix") // t.TempDir can be too long for a socket
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		path := dir + "/socket"

		// What a killed program leaves behind.
		stale, err := net.Listen("unix", path)
		require.NoError(t, err)
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		require.NoError(t, stale.Close())

		h := newHost(t)
		server, client := h.spawn(echo), h.spawn(nil)
		id, addr := server.listen(meta.TCPServerOptions{CertManager: m.manager, UnixPath: path, UnixMode: 0o660})
		assert.Equal(t, path, addr)
		file, err := os.Stat(path)
		require.NoError(t, err)
		if runtime.GOOS != "windows" {
			assert.Equal(t, os.FileMode(0o660), file.Mode().Perm())
		}
		_, err = meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: path})
		require.ErrorIs(t, err, meta.ErrListen, "a socket in use is not taken over")
		options := meta.TCPConnectionOptions{UnixPath: path, CertManager: m.manager}
		if m.tls() {
			options.ServerName = "localhost"
		}
		connection := client.connect(options)
		expect[meta.MessageTCPConnect](client)
		client.send(connection, meta.MessageTCP{Data: []byte("hello")})
		assert.Equal(t, "hello", string(expect[meta.MessageTCP](client).Data))
		server.do(func(o *owner) { assert.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
		eventually(t, func() bool { _, err := os.Stat(path); return os.IsNotExist(err) }, "the file is gone")
	})
}

// Of servers that start at once where a killed program has left its socket, one gets the path and
// keeps it.
func TestStaleUnixSocketHasOneHeir(t *testing.T) {
	dir, err := os.MkdirTemp("", "unix")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	const sockets, servers = 50, 8
	var group sync.WaitGroup
	var started [sockets]chan gen.MetaBehavior
	for i := range started {
		path := fmt.Sprintf("%s/%d", dir, i)
		stale, err := net.Listen("unix", path)
		require.NoError(t, err)
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		require.NoError(t, stale.Close())
		started[i] = make(chan gen.MetaBehavior, servers)
		for range servers {
			group.Go(func() {
				server, err := meta.CreateTCPServer(meta.TCPServerOptions{UnixPath: path})
				if err == nil {
					started[i] <- server
				} else {
					assert.ErrorIs(t, err, syscall.EADDRINUSE)
				}
			})
		}
	}
	group.Wait() // all at once, as those without the socket wait a while for it
	for i := range started {
		close(started[i])
		assert.Len(t, started[i], 1)
		conn, err := net.Dial("unix", fmt.Sprintf("%s/%d", dir, i))
		if assert.NoError(t, err) {
			conn.Close()
		}
		for server := range started[i] {
			server.Terminate(nil)
		}
	}
}
