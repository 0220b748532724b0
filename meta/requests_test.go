package meta_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// asker is a client of a protocol with frames of eight bytes: an id and a value.
type asker struct {
	act.Actor
	options    meta.TCPConnectionOptions
	timeout    time.Duration
	connection gen.Alias
	last       uint32
	requests   meta.Requests[uint32]
}

func (a *asker) Init(...any) error {
	connection, err := meta.CreateTCPConnection(a.options)
	if err != nil {
		return err
	}
	a.connection, err = a.SpawnMeta(connection, gen.MetaOptions{})
	return err
}

func (a *asker) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	switch value := request.(type) {
	case uint32:
		a.last++
		frame := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, a.last), value)
		if err := a.requests.Send(a, from, ref, a.connection, a.last, frame, a.timeout); err != nil {
			return err, nil
		}
		return nil, nil
	case string: // again, with the id of the request before
		return a.requests.Send(a, from, ref, a.connection, a.last, make([]byte, 8), a.timeout), nil
	}
	return a.requests.Waiting(), nil
}

func (a *asker) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCP:
		a.requests.Answer(a, binary.BigEndian.Uint32(m.Data), binary.BigEndian.Uint32(m.Data[4:]))
	case meta.MessageRequestTimeout:
		a.requests.Expire(a, m)
	case meta.MessageTCPDisconnect:
		a.requests.Fail(a, m.Reason)
		a.connection = gen.Alias{} // nothing more can be sent to it
	}
	return nil
}

// caller calls another process from a process of its own, since a Call blocks.
type caller struct{ act.Actor }

type call struct {
	to      gen.PID
	request any
	result  chan<- any
}

func (c *caller) HandleMessage(_ gen.PID, message any) error {
	m := message.(call)
	result, err := c.CallWithTimeout(m.to, m.request, 60)
	if err != nil {
		result = err
	}
	m.result <- result
	return nil
}

func (h *host) call(to gen.PID, request any) <-chan any {
	h.t.Helper()
	pid, err := h.Spawn(func() gen.ProcessBehavior { return &caller{} }, gen.ProcessOptions{})
	require.NoError(h.t, err)
	result := make(chan any, 1)
	require.NoError(h.t, h.Send(pid, call{to, request, result}))
	return result
}

// accept makes the handshake of a server.
func (m mode) accept(t testing.TB, conn net.Conn) net.Conn {
	t.Helper()
	if !m.tls() {
		return conn
	}
	secure := tls.Server(conn, m.manager.(manager).server)
	require.NoError(t, secure.Handshake())
	return secure
}

// ask starts an asker and gives the peer's side of its connection.
func ask(t *testing.T, m mode, timeout time.Duration) (h *host, pid gen.PID, peer net.Conn) {
	t.Helper()
	h = newHost(t)
	listener := newListener(t)
	t.Cleanup(func() { listener.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		accepted <- conn
	}()
	frames, err := meta.FixedLength(8)
	require.NoError(t, err)
	options := meta.TCPConnectionOptions{Host: "127.0.0.1", Port: portOf(t, listener.Addr().String()), Split: frames}
	if m.tls() {
		options.CertManager, options.ServerName = m.manager, "localhost"
	}
	pid, err = h.Spawn(func() gen.ProcessBehavior { return &asker{options: options, timeout: timeout} }, gen.ProcessOptions{})
	require.NoError(t, err)
	peer = m.accept(t, <-accepted)
	t.Cleanup(func() { peer.Close() })
	return h, pid, peer
}

// Answers find their callers in whatever order they come.
func TestRequestsAnswered(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		const n = 50
		h, pid, peer := ask(t, m, testTimeout)
		var calls []<-chan any
		for i := range uint32(n) {
			calls = append(calls, h.call(pid, i))
		}
		frames := make([]byte, 8*n)
		_, err := io.ReadFull(peer, frames)
		require.NoError(t, err)
		assert.Equal(t, any(n), <-h.call(pid, true), "all of them wait")
		for i := n - 1; i >= 0; i-- { // the last first, each with its own value plus 1000
			frame := frames[8*i : 8*i+8]
			binary.BigEndian.PutUint32(frame[4:], binary.BigEndian.Uint32(frame[4:])+1000)
			_, err := peer.Write(frame)
			require.NoError(t, err)
		}
		for i, result := range calls {
			assert.Equal(t, any(uint32(i)+1000), <-result)
		}
		_, err = peer.Write(make([]byte, 8)) // of id 0, which nobody asked for
		require.NoError(t, err)
		assert.Equal(t, any(0), <-h.call(pid, true))
	})
}

// Every caller hears: of a peer that does not answer, of the end of the connection, of an id in
// use.
func TestRequestsNotAnswered(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h, pid, peer := ask(t, m, 10*time.Millisecond)
		assert.Equal(t, any(meta.ErrNoAnswer), <-h.call(pid, uint32(1)))
		_, err := io.ReadFull(peer, make([]byte, 8))
		require.NoError(t, err)

		h, pid, peer = ask(t, m, testTimeout)
		first := h.call(pid, uint32(1))
		_, err = io.ReadFull(peer, make([]byte, 8))
		require.NoError(t, err)
		second, _ := (<-h.call(pid, "again")).(error)
		assert.ErrorIs(t, second, meta.ErrDuplicate)
		require.NoError(t, peer.Close())
		failed, _ := (<-first).(error)
		assert.ErrorIs(t, failed, meta.ErrClosedByPeer)
		late, _ := (<-h.call(pid, uint32(2))).(error)
		assert.Error(t, late, "nothing could be sent")

		h, pid, _ = ask(t, m, -1)
		wrong, _ := (<-h.call(pid, uint32(1))).(error)
		assert.ErrorIs(t, wrong, meta.ErrOption)
	})
}

// Many callers at a time get their own answers.
func TestRequestsAreNotMixedUp(t *testing.T) {
	h, pid, peer := ask(t, modes()[0], testTimeout)
	var answering sync.WaitGroup
	answering.Go(func() { _, _ = io.Copy(peer, peer) }) // an echo: the value is its own answer
	var asking sync.WaitGroup
	errs := make(chan error, 200)
	for i := range uint32(200) {
		result := h.call(pid, i)
		asking.Go(func() {
			if got := <-result; got != any(i) {
				errs <- fmt.Errorf("%d was answered with %v", i, got)
			}
		})
	}
	asking.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	require.NoError(t, errors.Join(all...))
	peer.Close()
	answering.Wait()
}

// liner is a client of a lineServer, whose lines begin with an id.
type liner struct {
	act.Actor
	options  meta.TCPConnectionOptions
	id       gen.Alias
	last     int
	requests meta.Requests[string]
}

func (l *liner) Init(...any) error {
	connection, err := meta.CreateTCPConnection(l.options)
	if err == nil {
		l.id, err = l.SpawnMeta(connection, gen.MetaOptions{})
	}
	return err
}

func (l *liner) HandleCall(from gen.PID, ref gen.Ref, request any) (any, error) {
	text, ok := request.(string)
	if !ok {
		return l.requests.Waiting(), nil
	}
	l.last++
	id := strconv.Itoa(l.last)
	if err := l.requests.Send(l, from, ref, l.id, id, []byte(id+" "+text+"\n"), 100*time.Millisecond); err != nil {
		return err, nil
	}
	return nil, nil
}

func (l *liner) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case meta.MessageTCP:
		id, text, _ := strings.Cut(string(m.Data), " ")
		l.requests.Answer(l, id, text)
	case meta.MessageTCPUnsent:
		id, _, _ := strings.Cut(string(m.Data), " ")
		l.requests.Answer(l, id, meta.ErrNotConnected)
	case meta.MessageRequestTimeout:
		l.requests.Expire(l, m)
	case meta.MessageTCPDisconnect:
		if !l.options.Reconnect.Keep {
			l.requests.Fail(l, m.Reason)
		}
	}
	return nil
}

// While the server is started again and again every caller hears its own answer, or why there is
// none.
func TestRequestsOverReconnect(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		for _, keep := range []bool{false, true} {
			server := newLineServer(t, m)
			h := newHost(t)
			options := m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond, Keep: keep})
			pid, err := h.Spawn(func() gen.ProcessBehavior { return &liner{options: options} }, gen.ProcessOptions{})
			require.NoError(t, err)
			for range 10 {
				results := map[string]<-chan any{}
				for i := range 20 {
					text := fmt.Sprint("request ", i)
					results[text] = h.call(pid, text)
				}
				server.stop()
				server.start()
				for text, result := range results {
					switch answer := (<-result).(type) {
					case string:
						require.Equal(t, text, answer)
					case error:
						_, ended := errors.AsType[*meta.DisconnectError](answer)
						require.True(t, ended || errors.Is(answer, meta.ErrNotConnected) || errors.Is(answer, meta.ErrNoAnswer), "%v", answer)
					default:
						require.Fail(t, "unexpected", "%v", answer)
					}
				}
				eventually(t, func() bool { return <-h.call(pid, "until there is a connection") == "until there is a connection" }, "it goes on")
			}
			require.Equal(t, 0, <-h.call(pid, 0), "none waits")
		}
	})
}
