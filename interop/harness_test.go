package interop

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/meta"
)

// versions are those of TLS that a modern program speaks.
var versions = []string{"1.2", "1.3"}

// owner is the actor behind our server and our client. As a server it sends back what it gets; who
// asks in HTTP gets an answer in HTTP, and the connection is closed. All other messages are for the
// test.
type owner struct {
	act.Actor
	t      *testing.T
	host   gen.Node
	pid    gen.PID
	server bool
	mail   chan any
}

type call func()

func (o *owner) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case call:
		m()
	case meta.MessageTCP:
		if !o.server {
			o.mail <- m
			return nil
		}
		if !bytes.HasPrefix(m.Data, []byte("GET ")) {
			o.SendAlias(m.ID, m)
			return nil
		}
		o.SendAlias(m.ID, meta.MessageTCP{Data: []byte("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n")})
		o.SendAlias(m.ID, meta.MessageTCPClose{})
	default:
		o.mail <- m
	}
	return nil
}

// spawn starts a node with an owner on it.
func spawn(t *testing.T, server bool) *owner {
	node, err := ergo.StartNode("interop@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{DefaultLogger: gen.DefaultLoggerOptions{Output: io.Discard}},
	})
	require.NoError(t, err)
	t.Cleanup(node.Stop)
	o := &owner{t: t, host: node, server: server, mail: make(chan any, 1000)}
	o.pid, err = node.Spawn(func() gen.ProcessBehavior { return o }, gen.ProcessOptions{})
	require.NoError(t, err)
	return o
}

// do runs f on the actor's goroutine and waits for it.
func (o *owner) do(f func()) {
	o.t.Helper()
	done := make(chan struct{})
	require.NoError(o.t, o.host.Send(o.pid, call(func() { defer close(done); f() })))
	select {
	case <-done:
	case <-time.After(testTimeout):
		o.t.Fatal("the actor does not answer")
	}
}

// echoServer is our server: an echo behind TLS.
type echoServer struct {
	*owner
	id   gen.Alias
	port uint16
}

func listen(t *testing.T, m gen.CertManager) *echoServer {
	t.Helper()
	s := &echoServer{owner: spawn(t, true)}
	server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", CertManager: m})
	require.NoError(t, err)
	s.do(func() { s.id, err = s.SpawnMeta(server, gen.MetaOptions{}) })
	require.NoError(t, err)
	_, err = fmt.Sscanf(s.inspect()["listen"], "127.0.0.1:%d", &s.port)
	require.NoError(t, err)
	return s
}

func (s *echoServer) inspect() (m map[string]string) {
	s.t.Helper()
	var err error
	s.do(func() { m, err = s.InspectMeta(s.id) })
	require.NoError(s.t, err)
	return m
}

// connected gives the server's next connection. The end of one before it may still be on its way.
func (s *echoServer) connected() meta.MessageTCPConnect {
	s.t.Helper()
	for {
		message := s.next()
		if m, ok := message.(meta.MessageTCPConnect); ok {
			return m
		}
		require.IsType(s.t, meta.MessageTCPDisconnect{}, message)
	}
}

// connect is our client: it connects to a program as soon as that listens.
func connect(o *owner, p *program, options meta.TCPConnectionOptions) (id gen.Alias) {
	o.t.Helper()
	options.Host, options.ServerName = "127.0.0.1", "localhost"
	for {
		connection, err := meta.CreateTCPConnection(options)
		if err == nil {
			o.do(func() { id, err = o.SpawnMeta(connection, gen.MetaOptions{}) })
			require.NoError(o.t, err)
			return id
		}
		select {
		case <-p.ended:
			o.t.Fatalf("%s does not listen but ended: %v", p.name, p.err)
		case <-time.After(10 * time.Millisecond):
			require.True(o.t, errors.Is(err, meta.ErrDial), "%v", err)
		}
	}
}

// next gives the actor's next message.
func (o *owner) next() any {
	o.t.Helper()
	select {
	case message := <-o.mail:
		return message
	case <-time.After(testTimeout):
		o.t.Fatal("no message")
		return nil
	}
}

// expect gives the actor's next message, which must be a T.
func expect[T any](o *owner) T {
	o.t.Helper()
	message := o.next()
	m, ok := message.(T)
	require.True(o.t, ok, "got %T %+v, want %T", message, message, m)
	return m
}
