package meta_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ergo.services/ergo"
	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/meta"
)

// What went through a server is in its numbers, and nothing that a client chose.
func TestStats(t *testing.T) {
	p := newPKI(t, true)
	a := newHost(t).spawn(echo)
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", CertManager: p.manager, MaxConnections: 50})
	require.NoError(t, err)
	var id gen.Alias
	a.do(func(o *owner) { id, err = o.SpawnMeta(server, gen.MetaOptions{}) })
	require.NoError(t, err)
	addr := meta.Stats(server).Listen
	assert.Equal(t, a.inspect(id)["listen"], addr)

	cert, err := tls.LoadX509KeyPair(p.file("client.crt"), p.file("client.key"))
	require.NoError(t, err)
	stranger, err := tls.LoadX509KeyPair(p.file("stranger.crt"), p.file("stranger.key"))
	require.NoError(t, err)
	config := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{cert}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for _, resumed := range []bool{false, true} {
		peer := tls.Client(dialTCP(t, addr), config)
		talk(t, peer)
		id := expect[meta.MessageTCPConnect](a).ID
		eventually(t, func() bool { return meta.Stats(server).MessagesOut == meta.Stats(server).MessagesIn }, "the answer is counted")
		var live []meta.ConnectionStats
		eventually(t, func() bool { live = meta.Connections(server); return len(live) == 1 }, "the one before has left")
		assert.Equal(t, id, live[0].ID)
		assert.Equal(t, "CN=client", live[0].Peer.Subject)
		assert.Equal(t, resumed, live[0].Peer.Resumed)
		assert.Equal(t, "active", live[0].State)
		assert.EqualValues(t, 5, live[0].BytesIn)
		assert.WithinDuration(t, time.Now(), live[0].Opened, time.Minute)
		peer.Close()
		expect[meta.MessageTCPDisconnect](a)
	}
	for _, certs := range [][]tls.Certificate{nil, {stranger}} {
		peer := tls.Client(dialTCP(t, addr), &tls.Config{InsecureSkipVerify: true, Certificates: certs})
		_, err := peer.Read(make([]byte, 1))
		assert.Error(t, err)
	}
	tls.Client(dialTCP(t, addr), &tls.Config{ServerName: strings.Repeat("a.", 130) + "test", InsecureSkipVerify: true}).Handshake()
	tls.Client(dialTCP(t, addr), &tls.Config{MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}).Handshake()
	tls.Client(dialTCP(t, addr), &tls.Config{ServerName: "localhost"}).Handshake() // does not trust us
	io.WriteString(dialTCP(t, addr), "GET / HTTP/1.1\r\n\r\n")
	dialTCP(t, addr).Close()

	want := map[string]uint64{"certificate": 2, "server name": 1, "protocol": 1, "refused by peer": 1, "not TLS": 1, "nothing sent": 1}
	eventually(t, func() bool { return assert.ObjectsAreEqual(want, meta.Stats(server).Refused) }, "all are counted")
	stats := meta.Stats(server)
	for why := range stats.Refused {
		assert.Contains(t, meta.RefusedReasons, why)
	}
	assert.Equal(t, map[string]uint64{"closed by peer": 2}, stats.Ended)
	assert.EqualValues(t, 9, stats.Accepted)
	assert.EqualValues(t, 10, stats.BytesIn)
	assert.EqualValues(t, 10, stats.BytesOut)
	assert.EqualValues(t, 2, stats.MessagesOut)
	assert.Equal(t, 50, stats.MaxConnections)
	require.Len(t, stats.Handshakes, 2)
	for _, h := range stats.Handshakes {
		assert.Equal(t, "TLS 1.3", h.Version)
		assert.EqualValues(t, 1, h.Count)
		assert.Positive(t, h.Total)
		assert.EqualValues(t, 1, h.Buckets[len(h.Buckets)-1])
	}
	assert.NotEqual(t, stats.Handshakes[0].Resumed, stats.Handshakes[1].Resumed)
	assert.Empty(t, meta.Connections(server))
	connection, err := meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: "127.0.0.1", Port: portOf(t, addr)})
	require.NoError(t, err)
	defer connection.Terminate(nil)
	assert.Panics(t, func() { meta.Stats(connection) })
}

// An outgoing connection tells how it stands while it waits for a peer that reads nothing, where an
// Inspect would wait with it.
func TestConnectionsOfOutgoing(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		listener := newListener(t)
		a := newHost(t).spawn(nil)
		options := meta.TCPConnectionOptions{Host: "127.0.0.1", Port: portOf(t, listener.Addr().String()), WriteBuffer: 32 << 10}
		if m.tls() {
			options.CertManager = m.manager
		}
		connection, err := meta.CreateTCPConnection(options)
		require.NoError(t, err)
		assert.Empty(t, meta.Connections(connection))
		var id gen.Alias
		a.do(func(o *owner) { id, err = o.SpawnMeta(connection, gen.MetaOptions{}) })
		require.NoError(t, err)
		peer, err := listener.Accept()
		require.NoError(t, err)
		defer peer.Close()
		if m.tls() {
			require.NoError(t, tls.Server(peer, m.manager.(manager).server).Handshake())
		}
		expect[meta.MessageTCPConnect](a)
		const size, messages = 1 << 20, 32 // more than the kernels hold
		for range messages {
			a.send(id, meta.MessageTCP{Data: make([]byte, size)})
		}
		eventually(t, func() bool { // the writer waits for room
			live := meta.Connections(connection)
			return len(live) == 1 && live[0].BytesWaiting > 0 && live[0].MessagesOut > 0 && live[0].MessagesOut < messages
		}, "it is seen while it waits")
		live := meta.Connections(connection)[0]
		assert.Equal(t, id, live.ID)
		assert.Equal(t, "active", live.State)
		peer.Close()
		expect[meta.MessageTCPDisconnect](a)
		assert.Contains(t, meta.Connections(connection)[0].State, "ending: ")
	})
}

// waitingLog is a log in which the line about an established connection waits until the owner has
// looked at it.
type waitingLog struct {
	logBuffer
	looked chan struct{}
}

func (l *waitingLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("established")) {
		select {
		case <-l.looked:
		case <-time.After(testTimeout):
		}
	}
	return l.logBuffer.Write(p)
}

// An owner that has the MessageTCPConnect of a connection finds it in Connections, Stats and
// Inspect, also before the connection has done anything else.
func TestConnectedIsSeen(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		log := &waitingLog{looked: make(chan struct{}, 1)}
		node, err := ergo.StartNode("seen@localhost", gen.NodeOptions{
			Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
			Log:     gen.LogOptions{Level: gen.LogLevelDebug, DefaultLogger: gen.DefaultLoggerOptions{Output: log}},
		})
		require.NoError(t, err)
		defer node.Stop()
		h := &host{node, t, &log.logBuffer}
		var a *actor
		a = h.spawn(func(o *owner, message any) bool {
			if connect, ok := message.(meta.MessageTCPConnect); ok {
				live := meta.Connections(a.server)
				assert.True(t, len(live) == 1 && live[0].ID == connect.ID, "Connections")
				assert.Equal(t, 1, meta.Stats(a.server).Connections, "Stats")
				log.looked <- struct{}{}
			}
			return false
		})
		options := meta.TCPServerOptions{}
		if m.tls() {
			options.CertManager = m.manager
		}
		server, addr := a.listen(options)
		conn := m.dial(t, addr)
		defer conn.Close()
		connect := expect[meta.MessageTCPConnect](a)
		assert.Empty(t, a.inspect(server, connect.ID.String())["error"], "Inspect")
	})
}

// Every accepted connection is counted once when it has ended, also if the server ended before the
// connection had an owner.
func TestEveryConnectionIsCounted(t *testing.T) {
	ends := map[string]func(a *actor, id gen.Alias){
		"drain":  func(a *actor, id gen.Alias) { assert.Equal(t, 4, a.call(id, meta.MessageTCPDrain{})) },
		"parent": func(a *actor, _ gen.Alias) { require.NoError(t, a.h.SendExit(a.pid, gen.TerminateReasonShutdown)) },
		"kill":   func(a *actor, _ gen.Alias) { require.NoError(t, a.h.Kill(a.pid)) },
		"node":   func(a *actor, _ gen.Alias) { a.h.Stop() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				a := newHost(t).spawn(echo)
				options := meta.TCPServerOptions{CertManager: m.manager, MaxConnectionsPerAddress: 4}
				if !m.tls() {
					options.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} // it waits for the header
				}
				id, addr := a.listen(options)
				server := a.server
				join := func() net.Conn {
					conn := dialTCP(t, addr)
					if !m.tls() {
						_, err := conn.Write([]byte("PROXY UNKNOWN\r\n"))
						require.NoError(t, err)
					}
					return m.secure(t, conn)
				}
				join().Close()
				expect[meta.MessageTCPConnect](a)
				expect[meta.MessageTCPDisconnect](a)
				eventually(t, func() bool { return meta.Stats(server).Connections == 0 }, "it no longer counts for its address")
				talk(t, join())
				expect[meta.MessageTCPConnect](a)
				for range 3 {
					dialTCP(t, addr)
				}
				eventually(t, func() bool { return meta.Stats(server).Establishing == 3 }, "three wait for their peers")
				end(a, id)
				eventually(t, func() bool { s := meta.Stats(server); return s.Connections+s.Establishing == 0 }, "all have ended")
				stats := meta.Stats(server)
				var refused, ended uint64
				for why, n := range stats.Refused {
					assert.Contains(t, meta.RefusedReasons, why)
					refused += n
				}
				for _, n := range stats.Ended {
					ended += n
				}
				assert.EqualValues(t, 5, stats.Accepted)
				assert.EqualValues(t, 2, ended, "%v", stats.Ended)
				assert.EqualValues(t, 3, refused, "%v", stats.Refused)
				assert.EqualValues(t, 3, stats.Refused["terminated"], "%v", stats.Refused)
			})
		})
	}
}
