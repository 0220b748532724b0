package meta_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// counter is the actor of one connection. It answers each line with the number of lines that it has
// seen.
type counter struct {
	act.Actor
	refuse bool
	stay   bool // does not end with its connection
	ended  chan<- error
	lines  int
}

func (c *counter) Init(...any) error {
	if c.refuse {
		return errors.New("no room")
	}
	return nil
}

func (c *counter) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCP:
		c.lines++
		switch string(m.Data) {
		case "panic":
			panic("as asked")
		case "error":
			return errors.New("as asked")
		case "normal":
			return gen.TerminateReasonNormal
		}
		return c.SendAlias(m.ID, meta.MessageTCP{Data: fmt.Appendf(nil, "%d\n", c.lines)})
	case meta.MessageTCPDisconnect:
		if !c.stay {
			return gen.TerminateReasonNormal
		}
	case meta.MessageTCPDraining:
		return c.SendAlias(m.ID, meta.MessageTCPClose{})
	}
	return nil
}

func (c *counter) Terminate(reason error) { c.ended <- reason }

// actorServer starts a server with the actors that create makes; nil makes plain ones.
func actorServer(t *testing.T, m mode, create func() *counter, change ...func(*meta.ActorServer)) (h *host, pid gen.PID, server gen.MetaBehavior, ended chan error) {
	t.Helper()
	h, ended = newHost(t), make(chan error, 100)
	options := meta.ActorServer{
		Server: meta.TCPServerOptions{Host: "127.0.0.1", CertManager: m.manager, Split: bufio.ScanLines, CloseTimeout: 50 * time.Millisecond},
		Actor: func() gen.ProcessBehavior {
			c := &counter{}
			if create != nil {
				c = create()
			}
			c.ended = ended
			return c
		},
		Started: func(s gen.MetaBehavior) { server = s },
	}
	if wrapping, ok := m.manager.(manager); ok && wrapping.wrapped {
		options.Server.Host, options.Server.Listener = "", wrappingListener{newListener(t)}
	}
	for _, f := range change {
		f(&options)
	}
	pid, err := h.SpawnRegister("lines", options.Process, gen.ProcessOptions{})
	require.NoError(t, err)
	return h, pid, server, ended
}

func line(t *testing.T, conn net.Conn, text string) string {
	t.Helper()
	_, err := io.WriteString(conn, text+"\n")
	require.NoError(t, err)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	return answer
}

func next(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case reason := <-ended:
		return reason
	case <-time.After(testTimeout):
		t.Fatal("no actor has ended")
		return nil
	}
}

// Each connection has an actor with a state of its own, which ends with it and with which it ends.
func TestActorForEachConnection(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h, _, server, ended := actorServer(t, m, nil)
		before, err := h.ProcessList() // Ergo's node has processes of its own
		require.NoError(t, err)
		addr := meta.Stats(server).Listen
		alice, bob := m.dial(t, addr), m.dial(t, addr)
		assert.Equal(t, "1\n", line(t, alice, "hello"))
		assert.Equal(t, "2\n", line(t, alice, "hello"))
		assert.Equal(t, "1\n", line(t, bob, "hello"), "bob has an actor of his own")

		require.NoError(t, alice.Close())
		assert.ErrorIs(t, next(t, ended), gen.TerminateReasonNormal)
		assert.Equal(t, "2\n", line(t, bob, "hello"))

		for _, how := range []string{"panic", "error", "normal"} {
			carol := m.dial(t, addr)
			_, err := io.WriteString(carol, how+"\n")
			require.NoError(t, err)
			_, err = io.ReadAll(carol)
			assert.NoError(t, err, "the connection ends in order when its actor has ended")
			reason := next(t, ended)
			assert.Equal(t, how == "normal", errors.Is(reason, gen.TerminateReasonNormal), "%s: %v", how, reason)
		}
		assert.Equal(t, "3\n", line(t, bob, "hello"), "the others do not notice")
		eventually(t, func() bool { return meta.Stats(server).Connections == 1 }, "the connections of the ended actors have ended")

		pids, err := h.ProcessList()
		require.NoError(t, err)
		assert.Len(t, pids, len(before)+1, "only bob's is left")
	})
}

// An actor that does not end with its connection is ended.
func TestActorThatStaysIsEnded(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		_, _, server, ended := actorServer(t, m, func() *counter { return &counter{stay: true} })
		conn := m.dial(t, meta.Stats(server).Listen)
		assert.Equal(t, "1\n", line(t, conn, "hello"))
		require.NoError(t, conn.Close())
		assert.ErrorIs(t, next(t, ended), gen.TerminateReasonShutdown)
	})
}

// Where no actor can be started the peer is refused, and the server goes on.
func TestActorThatDoesNotStart(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		var accept atomic.Bool
		h, _, server, _ := actorServer(t, m, func() *counter { return &counter{refuse: !accept.Load()} })
		conn := m.dial(t, meta.Stats(server).Listen)
		_, err := io.ReadAll(conn)
		assert.NoError(t, err, "it is closed in order")
		eventually(t, h.log.contains("no actor for the connection: no room"), "the log says why")
		assert.EqualValues(t, 1, meta.Stats(server).Refused["owner gone"])
		accept.Store(true)
		assert.Equal(t, "1\n", line(t, m.dial(t, meta.Stats(server).Listen), "hello"))
	})
}

// A drain ends the process when the last connection has ended, and not before.
func TestActorServerDrains(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h, pid, server, ended := actorServer(t, m, nil)
		conn := m.dial(t, meta.Stats(server).Listen)
		assert.Equal(t, "1\n", line(t, conn, "hello"))
		require.NoError(t, h.Send(pid, meta.MessageTCPDrain{Timeout: testTimeout}))
		_, err := io.ReadAll(conn) // its actor closes it when it is told
		assert.NoError(t, err)
		assert.ErrorIs(t, next(t, ended), gen.TerminateReasonNormal)
		eventually(t, func() bool { _, err := h.ProcessState(pid); return err != nil }, "the process has ended")
		require.Zero(t, meta.Stats(server).Connections)
	})
}

// The end of the process is the end of everything.
func TestActorServerEnds(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h, pid, server, ended := actorServer(t, m, nil)
		conn := m.dial(t, meta.Stats(server).Listen)
		assert.Equal(t, "1\n", line(t, conn, "hello"))
		require.NoError(t, h.SendExit(pid, gen.TerminateReasonShutdown))
		_, err := io.ReadAll(conn)
		assert.NoError(t, err)
		assert.Error(t, next(t, ended))
		eventually(t, func() bool {
			conn, err := net.Dial("tcp", meta.Stats(server).Listen)
			if err == nil {
				conn.Close()
			}
			return err != nil
		}, "the port is free")
	})
}

func TestActorServerOptions(t *testing.T) {
	h := newHost(t)
	one := func() gen.ProcessBehavior { return &counter{} }
	for name, test := range map[string]struct {
		options meta.ActorServer
		says    string
	}{
		"no actor": {meta.ActorServer{}, "ActorServer.Actor"},
		"pool":     {meta.ActorServer{Actor: one, Server: meta.TCPServerOptions{ProcessPool: []gen.Atom{"worker"}}}, "ProcessPool"},
		"route":    {meta.ActorServer{Actor: one, Server: meta.TCPServerOptions{Route: func(meta.Peer) gen.Atom { return "" }}}, "Route"},
		"server":   {meta.ActorServer{Actor: one, Server: meta.TCPServerOptions{BufferSize: -1}}, "BufferSize"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.Spawn(test.options.Process, gen.ProcessOptions{})
			require.ErrorIs(t, err, meta.ErrOption)
			assert.ErrorContains(t, err, test.says)
		})
	}
}

// A connection that is still in its handshake when a drain begins continues, as that of any server,
// and the process waits for it. One that fails its handshake then is not waited for.
func TestActorServerDrainsHandshakes(t *testing.T) {
	tlsModes(t, func(t *testing.T, m mode) {
		h, pid, server, ended := actorServer(t, m, nil)
		addr := meta.Stats(server).Listen
		conn, other := dialTCP(t, addr), dialTCP(t, addr)
		eventually(t, func() bool { return meta.Stats(server).Establishing == 2 }, "they are accepted")
		require.NoError(t, h.Send(pid, meta.MessageTCPDrain{Timeout: testTimeout}))
		eventually(t, func() bool {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
			}
			return err != nil
		}, "it accepts no more")
		secure := m.secure(t, conn)
		_, err := io.ReadAll(secure) // its actor closes it when it is told
		assert.NoError(t, err)
		assert.ErrorIs(t, next(t, ended), gen.TerminateReasonNormal)
		_, err = h.ProcessState(pid)
		assert.NoError(t, err)
		other.Close()
		eventually(t, func() bool { _, err := h.ProcessState(pid); return err != nil }, "the process has ended")
	})
}

// An actor that does not end with its connection is ended also if the mailbox of the server's
// process is full when the connection ends, and when CloseTimeout is over.
func TestActorThatStaysWithoutRoom(t *testing.T) {
	for _, later := range []bool{false, true} {
		eachMode(t, func(t *testing.T, m mode) {
			h := newHost(t)
			var server gen.MetaBehavior
			ended, alarmed, busy := make(chan error, 100), make(chan struct{}), make(chan struct{})
			options := meta.ActorServer{
				Server:  meta.TCPServerOptions{Host: "127.0.0.1", CertManager: m.manager, Split: bufio.ScanLines, CloseTimeout: 50 * time.Millisecond, AlarmHigh: 2},
				Actor:   func() gen.ProcessBehavior { return &counter{stay: true, ended: ended} },
				Started: func(s gen.MetaBehavior) { server = s },
				Alarm: func(m meta.MessageTCPAlarm) {
					if m.High {
						close(alarmed)
						<-busy
					}
				},
			}
			if wrapping, ok := m.manager.(manager); ok && wrapping.wrapped {
				options.Server.Host, options.Server.Listener = "", wrappingListener{newListener(t)}
			}
			pid, err := h.SpawnRegister("lines", options.Process, gen.ProcessOptions{MailboxSize: 3})
			require.NoError(t, err)
			conn := m.dial(t, meta.Stats(server).Listen)
			assert.Equal(t, "1\n", line(t, conn, "hello"))
			end := func() {
				require.NoError(t, conn.Close())
				eventually(t, func() bool { return meta.Stats(server).Connections == 0 }, "the connection has ended")
			}
			if later {
				end()
				time.Sleep(20 * time.Millisecond) // in which the process hears of it
				dialTCP(t, meta.Stats(server).Listen)
			}
			dialTCP(t, meta.Stats(server).Listen) // raises the alarm
			<-alarmed
			for h.Send(pid, "fills the mailbox") == nil {
			}
			if later {
				time.Sleep(100 * time.Millisecond) // CloseTimeout is over
			} else {
				end()
			}
			close(busy)
			for {
				reason := next(t, ended)
				if errors.Is(reason, gen.TerminateReasonShutdown) {
					break
				}
			}
		})
	}
}
