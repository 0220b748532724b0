package meta_test

import (
	"net"
	"runtime"
	"strconv"
	"testing"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// While a server is suspended clients connect and wait, and open connections go on. All of them
// come in when it resumes.
func TestSuspend(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, MaxConnectionsPerAddress: 10})
		open := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		assert.Equal(t, "yes", a.inspect(id)["accepting"])
		assert.Equal(t, true, a.call(id, meta.MessageTCPSuspend{}))
		assert.Equal(t, false, a.call(id, meta.MessageTCPSuspend{}), "it is suspended already")
		assert.Equal(t, "no: suspended", a.inspect(id)["accepting"])
		var late []net.Conn
		for range 5 {
			late = append(late, dialTCP(t, addr))
		}
		talk(t, open)
		stats := meta.Stats(a.server)
		assert.EqualValues(t, 1, stats.Accepted)
		assert.True(t, stats.Suspended)
		a.quiet()

		a.send(id, meta.MessageTCPResume{})
		for _, conn := range late {
			talk(t, m.secure(t, conn))
			expect[meta.MessageTCPConnect](a)
		}
		assert.Equal(t, "yes", a.inspect(id)["accepting"])
		assert.False(t, meta.Stats(a.server).Suspended)
		assert.Equal(t, false, a.call(id, meta.MessageTCPResume{}))
	})
}

// It is the same with several addresses, and with a unix socket.
func TestSuspendListeners(t *testing.T) {
	for name, options := range map[string]meta.TCPServerOptions{
		"localhost": {Host: "localhost"},
		"unix":      {UnixPath: t.TempDir() + "/s"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newHost(t).spawn(echo)
			id, addr := a.listen(options)
			a.call(id, meta.MessageTCPSuspend{})
			networks := map[string][]string{"unix": {"unix"}, "localhost": {"tcp4", "tcp6"}}[name]
			var late []net.Conn
			for _, network := range networks {
				if network != "unix" {
					addr = net.JoinHostPort("localhost", strconv.Itoa(int(portOf(t, addr))))
				}
				for range 4 {
					conn, err := net.DialTimeout(network, addr, testTimeout)
					if err != nil && network == "tcp6" {
						break // this machine has none
					}
					require.NoError(t, err)
					t.Cleanup(func() { conn.Close() })
					late = append(late, conn)
				}
			}
			assert.Zero(t, meta.Stats(a.server).Accepted)
			a.quiet()
			a.call(id, meta.MessageTCPResume{})
			for _, conn := range late {
				talk(t, conn)
				expect[meta.MessageTCPConnect](a)
			}
		})
	}
}

// A suspended server can be drained and ended, and cuts off those who waited.
func TestSuspendedServerEnds(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		for _, how := range []string{"drain", "exit"} {
			a := newHost(t).spawn(nil)
			id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
			a.call(id, meta.MessageTCPSuspend{})
			late := dialTCP(t, addr)
			if how == "drain" {
				assert.Equal(t, 0, a.call(id, meta.MessageTCPDrain{}))
			} else {
				a.do(func(o *owner) { require.NoError(t, o.SendExitMeta(id, gen.TerminateReasonNormal)) })
			}
			_, err := late.Read(make([]byte, 1))
			assertEnded(t, err)
			eventually(t, func() bool { return a.inspectAny(id) == nil }, "the meta process has ended")
			a.quiet()
		}
	})
}

// More room lets those in who wait, less closes nobody.
func TestLimitsChange(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, MaxConnections: 1})
		peers := []net.Conn{m.dial(t, addr)}
		expect[meta.MessageTCPConnect](a)
		var late []net.Conn
		for range 4 {
			late = append(late, dialTCP(t, addr))
		}
		eventually(t, func() bool { return a.inspect(id)["accepting"] == "no: MaxConnections is reached" }, "the others wait")
		before := meta.MessageTCPLimits{MaxConnections: 1, MaxConnectionsPerAddress: -1, MaxHandshakes: -1, MaxHandshakeFailures: -1}
		if m.tls() {
			before.MaxHandshakes = 2 * runtime.GOMAXPROCS(0)
		}
		assert.Equal(t, before, a.call(id, meta.MessageTCPLimits{}), "it only asks")
		assert.Equal(t, before, a.call(id, meta.MessageTCPLimits{MaxConnections: 3}))
		for range 2 { // the kernel need not hand them out in order of their dials, but it does
			peers = append(peers, m.secure(t, late[0]))
			late = late[1:]
			expect[meta.MessageTCPConnect](a)
		}
		assert.Equal(t, "3", a.inspect(id)["max connections"])
		assert.Equal(t, 3, meta.Stats(a.server).MaxConnections)

		a.call(id, meta.MessageTCPLimits{MaxConnections: 1})
		for _, peer := range peers {
			talk(t, peer)
		}
		for i := range 2 { // which leaves one, as many as there may be
			peers[i].Close()
			expect[meta.MessageTCPDisconnect](a)
			eventually(t, func() bool { return meta.Stats(a.server).Connections == 2-i }, "it has left")
		}
		assert.EqualValues(t, 3, meta.Stats(a.server).Accepted)
		peers[2].Close()
		expect[meta.MessageTCPDisconnect](a)
		talk(t, m.secure(t, late[0]))
		expect[meta.MessageTCPConnect](a)

		a.call(id, meta.MessageTCPLimits{MaxConnections: -1, MaxConnectionsPerAddress: 2})
		talk(t, m.secure(t, late[1]))
		expect[meta.MessageTCPConnect](a)
		_, err := dialTCP(t, addr).Read(make([]byte, 1))
		assertEnded(t, err)
		info := a.inspect(id)
		assert.Equal(t, "unlimited", info["max connections"])
		assert.Equal(t, "2", info["max connections per address"])
		assert.Equal(t, "1", info["over limit"])
	})
}

// A server that waits for its next connection with room for it does not take it when the room has
// gone.
func TestLimitsLoweredWhileAccepting(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(echo)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager})
		peer := m.dial(t, addr)
		expect[meta.MessageTCPConnect](a)
		a.call(id, meta.MessageTCPLimits{MaxConnections: 1})
		late := dialTCP(t, addr)
		talk(t, peer)
		assert.EqualValues(t, 1, meta.Stats(a.server).Accepted)
		peer.Close()
		talk(t, m.secure(t, late))
	})
}

func TestLimitsRefused(t *testing.T) {
	h := newHost(t)
	a := h.spawn(nil)
	plain, _ := a.listen(meta.TCPServerOptions{MaxConnections: 7})
	unix, _ := a.listen(meta.TCPServerOptions{UnixPath: t.TempDir() + "/s"})
	for _, test := range []struct {
		id    gen.Alias
		m     meta.MessageTCPLimits
		names string
	}{
		{plain, meta.MessageTCPLimits{MaxConnections: -2}, "MaxConnections: is -2"},
		{plain, meta.MessageTCPLimits{MaxConnections: 5, MaxConnectionsPerAddress: -5}, "MaxConnectionsPerAddress: is -5"},
		{plain, meta.MessageTCPLimits{MaxHandshakes: 3}, "MaxHandshakes: there are no handshakes"},
		{plain, meta.MessageTCPLimits{MaxHandshakeFailures: 3}, "MaxHandshakeFailures: there are no handshakes"},
		{unix, meta.MessageTCPLimits{MaxConnectionsPerAddress: 1}, "MaxConnectionsPerAddress"},
	} {
		err, ok := a.call(test.id, test.m).(error)
		require.True(t, ok, test.names)
		require.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, test.names)
	}
	assert.Equal(t, "7", a.inspect(plain)["max connections"], "nothing was changed")
	a.send(plain, meta.MessageTCPLimits{MaxConnections: -2})
	eventually(t, h.log.contains("MaxConnections: is -2"), "the log says so")
}

// The parent hears of many connections once, and once when they have become few.
func TestAlarm(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		worker := h.spawnNamed("worker", echo)
		a := h.spawn(nil)
		id, addr := a.listen(meta.TCPServerOptions{CertManager: m.manager, ProcessPool: []gen.Atom{"worker"}, AlarmHigh: 3, AlarmLow: 1})
		for range 2 {
			var peers []net.Conn
			join := func() {
				peers = append(peers, m.dial(t, addr))
				until(worker, always[meta.MessageTCPConnect])
			}
			join()
			join()
			a.quiet()
			join()
			assert.Equal(t, meta.MessageTCPAlarm{ID: id, Connections: 3, High: true}, expect[meta.MessageTCPAlarm](a))
			leave := func() {
				peers[0].Close()
				until(worker, always[meta.MessageTCPDisconnect])
				peers = peers[1:]
				eventually(t, func() bool { s := meta.Stats(a.server); return s.Connections+s.Establishing == len(peers) }, "it has left")
			}
			leave()
			join() // back at the mark, which it has heard of
			leave()
			a.quiet()
			leave()
			assert.Equal(t, meta.MessageTCPAlarm{ID: id, Connections: 1}, expect[meta.MessageTCPAlarm](a))
			leave()
			a.quiet()
		}
	})
	for names, options := range map[string]meta.TCPServerOptions{
		"AlarmHigh: is -1": {AlarmHigh: -1},
		"AlarmLow: is 5":   {AlarmLow: 5},
		"AlarmLow: is 6":   {AlarmHigh: 6, AlarmLow: 6},
		"AlarmHigh: is 6":  {AlarmHigh: 6, MaxConnections: 5},
	} {
		_, err := meta.CreateTCPServer(options)
		require.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, names)
	}
}

// What is said to a server is said to the process of an ActorServer.
func TestActorServerSuspendsAndLimits(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h, pid, server, _ := actorServer(t, m, nil)
		a := h.spawn(nil)
		call := func(request any) (answer any) {
			a.do(func(o *owner) {
				var err error
				answer, err = o.Call(pid, request)
				require.NoError(t, err)
			})
			return answer
		}
		assert.Equal(t, true, call(meta.MessageTCPSuspend{}))
		conn := dialTCP(t, meta.Stats(server).Listen)
		var info map[string]string
		a.do(func(o *owner) {
			var err error
			info, err = o.Inspect(pid)
			require.NoError(t, err)
		})
		assert.Equal(t, "no: suspended", info["accepting"])
		assert.Equal(t, "0", info["actors"])
		assert.IsType(t, meta.MessageTCPLimits{}, call(meta.MessageTCPLimits{MaxConnections: 1}))
		assert.Equal(t, 1, meta.Stats(server).MaxConnections)
		assert.Zero(t, meta.Stats(server).Accepted)
		require.NoError(t, h.Send(pid, meta.MessageTCPResume{}))
		assert.Equal(t, "1\n", line(t, m.secure(t, conn), "hello"))
		err, _ := call(meta.MessageTCPLimits{MaxConnections: -3}).(error)
		assert.ErrorContains(t, err, "MaxConnections: is -3")
	})
}

// The program hears of many connections of an ActorServer, and once more when they have become few.
func TestActorServerAlarm(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		alarms := make(chan meta.MessageTCPAlarm, 10)
		h, _, server, ended := actorServer(t, m, nil, func(s *meta.ActorServer) {
			s.Server.AlarmHigh, s.Alarm = 2, func(a meta.MessageTCPAlarm) {
				alarms <- a
				panic("as asked") // which ends nothing
			}
		})
		first := m.dial(t, meta.Stats(server).Listen)
		line(t, first, "hello")
		second := m.dial(t, meta.Stats(server).Listen)
		high := <-alarms
		assert.Equal(t, meta.MessageTCPAlarm{ID: high.ID, Connections: 2, High: true}, high)
		line(t, second, "hello")
		second.Close()
		next(t, ended)
		assert.Equal(t, meta.MessageTCPAlarm{ID: high.ID, Connections: 1}, <-alarms)
		assert.True(t, h.log.contains("2 connections: AlarmHigh is reached")())
		line(t, first, "hello")
		assert.True(t, h.log.contains("ActorServer.Alarm panicked: as asked")())
	})
}
