package meta_test

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ergo.services/ergo"
	"ergo.services/ergo/act"
	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(&said, nil)))
	flag.Set("test.parallel", "6") // the modes mostly wait
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: names.dial}
	// Ergo 3.1 keeps a goroutine that waits for signals when its node has ended.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("ergo.services/ergo/node.(*node).SetCTRLC.func1"), goleak.Cleanup(func(code int) {
		os.Exit(cmp.Or(code, said.check()))
	}))
}

// testTimeout is how long a test waits for what must happen. It ends what hangs; a busy machine
// takes long for much, and is no failure.
const testTimeout = 30 * time.Second

// mode is one way to carry the same bytes. A test that ranges over modes runs over all of them.
type mode struct {
	name    string
	manager gen.CertManager // nil: plain TCP
	client  *tls.Config     // of a plain crypto/tls client
}

func (m mode) tls() bool { return m.manager != nil }

// dial connects as a peer that knows nothing of actors.
func (m mode) dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	return m.secure(t, dialTCP(t, addr))
}

// dialTCP connects without a handshake.
func dialTCP(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, testTimeout)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(testTimeout))
	return conn
}

// secure makes the handshake.
func (m mode) secure(t testing.TB, conn net.Conn) net.Conn {
	t.Helper()
	if !m.tls() {
		return conn
	}
	secure := tls.Client(conn, m.client)
	require.NoError(t, secure.Handshake())
	return secure
}

// manager is the least that turns TLS on: two fixed configurations.
type manager struct {
	server, client *tls.Config
	wrapped        bool // its servers' connections are to be no *net.TCPConn
}

func (m manager) ServerTLS() *tls.Config { return m.server }
func (m manager) ClientTLS(name string) *tls.Config {
	config := m.client.Clone()
	config.ServerName = name
	return config
}
func (m manager) Update(tls.Certificate) {}
func (m manager) GetCertificateFunc() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("unused") }
}
func (m manager) GetCertificate() tls.Certificate { return tls.Certificate{} }

// modesCA is the CA of servers and clients in all modes.
var modesCA = sync.OnceValue(func() *tlstest.CA {
	ca, err := tlstest.GenerateCA()
	if err != nil {
		panic(err)
	}
	return ca
})

var modes = sync.OnceValue(func() []mode {
	ca := modesCA()
	version := func(name string, version uint16, mutual bool) mode {
		server := &tls.Config{MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{generate(ca, "localhost")}}
		client := &tls.Config{MinVersion: version, MaxVersion: version, RootCAs: ca.Pool(), ServerName: "localhost"}
		if mutual {
			server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
			client.Certificates = []tls.Certificate{generate(ca, "client.example.test")}
		}
		return mode{name, manager{server: server, client: client}, client}
	}
	wrapped := version("wrapped", tls.VersionTLS13, false)
	wrapped.manager = manager{server: wrapped.manager.(manager).server, client: wrapped.client, wrapped: true}
	return []mode{
		{name: "plain"},
		version("TLS 1.2", tls.VersionTLS12, false),
		version("TLS 1.3", tls.VersionTLS13, false),
		version("mTLS", tls.VersionTLS13, true),
		wrapped,
	}
})

func generate(ca *tlstest.CA, name string) tls.Certificate {
	pair, err := ca.Generate(tlstest.Leaf{CommonName: name, Names: []string{name, "127.0.0.1"}})
	if err != nil {
		panic(err)
	}
	said.key(pair.Certificate())
	return pair.Certificate()
}

// eachMode runs the same test over every mode.
func eachMode(t *testing.T, test func(t *testing.T, m mode)) {
	for _, m := range modes() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			test(t, m)
		})
	}
}

// tlsModes runs it over all but plain TCP.
func tlsModes(t *testing.T, test func(t *testing.T, m mode)) {
	for _, m := range modes() {
		if m.tls() {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				test(t, m)
			})
		}
	}
}

// host is a node with its log.
type host struct {
	gen.Node
	t   *testing.T
	log *logBuffer
}

func newHost(t *testing.T) *host {
	t.Helper()
	log := &logBuffer{}
	node, err := ergo.StartNode("test@localhost", gen.NodeOptions{
		Network: gen.NetworkOptions{Mode: gen.NetworkModeDisabled},
		Log:     gen.LogOptions{Level: gen.LogLevelDebug, DefaultLogger: gen.DefaultLoggerOptions{Output: log}},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		node.Stop()
		said.Write([]byte(log.String()))
		if t.Failed() {
			t.Logf("log of the node:\n%s", log)
		}
	})
	return &host{node, t, log}
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) contains(text string) func() bool {
	return func() bool { return strings.Contains(b.String(), text) }
}

// owner is an actor that a test drives: it hands what it receives to the test, or to react, and
// runs what the test sends it.
type owner struct {
	act.Actor
	mail  chan any
	react func(o *owner, message any) (handled bool)
}

type run func(*owner)

func (o *owner) HandleMessage(_ gen.PID, message any) error {
	switch m := message.(type) {
	case run:
		m(o)
		return nil
	case meta.MessageTCP, meta.MessageTCPUnsent: // bytes of the test
	default:
		fmt.Fprintf(&said, "%+v\n", m)
	}
	if o.react == nil || !o.react(o, message) {
		o.mail <- message
	}
	return nil
}

// actor is the test's handle on an owner.
type actor struct {
	h   *host
	pid gen.PID
	*owner
	server gen.MetaBehavior // what listen has created last
}

// spawn starts an owner; react may be nil.
func (h *host) spawn(react func(o *owner, message any) bool, options ...gen.ProcessOptions) *actor {
	return h.spawnNamed("", react, options...)
}

func (h *host) spawnNamed(name gen.Atom, react func(o *owner, message any) bool, options ...gen.ProcessOptions) *actor {
	h.t.Helper()
	o := &owner{mail: make(chan any, 4096), react: react}
	var option gen.ProcessOptions
	if len(options) > 0 {
		option = options[0]
	}
	factory := func() gen.ProcessBehavior { return o }
	var pid gen.PID
	var err error
	if name == "" {
		pid, err = h.Spawn(factory, option)
	} else {
		pid, err = h.SpawnRegister(name, factory, option)
	}
	require.NoError(h.t, err)
	return &actor{h: h, pid: pid, owner: o}
}

// echo answers every MessageTCP with its own bytes and keeps the rest for the test.
func echo(o *owner, message any) bool {
	if m, ok := message.(meta.MessageTCP); ok {
		o.SendAlias(m.ID, m)
		return true
	}
	return false
}

// do runs f on the actor's goroutine and waits for it.
func (a *actor) do(f func(o *owner)) {
	a.h.t.Helper()
	done := make(chan struct{})
	require.NoError(a.h.t, a.h.Send(a.pid, run(func(o *owner) { defer close(done); f(o) })))
	select {
	case <-done:
	case <-time.After(testTimeout):
		a.h.t.Fatal("the actor does not answer")
	}
}

// listen creates and spawns a server and gives its alias and address.
func (a *actor) listen(options meta.TCPServerOptions) (id gen.Alias, addr string) {
	a.h.t.Helper()
	if options.Listener == nil && options.UnixPath == "" && options.Host == "" {
		options.Host = "127.0.0.1"
		if m, ok := options.CertManager.(manager); ok && m.wrapped {
			options.Host, options.Listener = "", wrappingListener{newListener(a.h.t)}
		}
	}
	server, err := meta.CreateTCPServer(options)
	require.NoError(a.h.t, err)
	a.server = server
	a.do(func(o *owner) { id, err = o.SpawnMeta(server, gen.MetaOptions{}) })
	require.NoError(a.h.t, err)
	return id, a.inspect(id)["listen"]
}

// connect creates and spawns an outgoing connection.
func (a *actor) connect(options meta.TCPConnectionOptions) (id gen.Alias) {
	a.h.t.Helper()
	connection, err := meta.CreateTCPConnection(options)
	require.NoError(a.h.t, err)
	a.do(func(o *owner) { id, err = o.SpawnMeta(connection, gen.MetaOptions{}) })
	require.NoError(a.h.t, err)
	return id
}

func (a *actor) inspect(id gen.Alias, item ...string) (m map[string]string) {
	a.h.t.Helper()
	var err error
	a.do(func(o *owner) { m, err = o.InspectMeta(id, item...) })
	require.NoError(a.h.t, err)
	fmt.Fprintln(&said, m)
	return m
}

func (a *actor) send(id gen.Alias, message any) {
	a.h.t.Helper()
	var err error
	a.do(func(o *owner) { err = o.SendAlias(id, message) })
	require.NoError(a.h.t, err)
}

// expect gives the next message of the actor, which must be a T.
func expect[T any](a *actor) T {
	a.h.t.Helper()
	select {
	case message := <-a.mail:
		m, ok := message.(T)
		require.True(a.h.t, ok, "got %T %+v, want %T", message, message, m)
		return m
	case <-time.After(testTimeout):
		var m T
		a.h.t.Fatalf("no message, want %T", m)
		return m
	}
}

// quiet says that the actor has received nothing that the test has not taken.
func (a *actor) quiet() {
	a.h.t.Helper()
	a.do(func(*owner) {})
	select {
	case message := <-a.mail:
		a.h.t.Fatalf("unexpected message %T %+v", message, message)
	default:
	}
}

// eventually waits for a condition that no message announces.
func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, testTimeout, 2*time.Millisecond, what)
}

// wrappingListener hides what its connections are, as a library around them does: there is no
// descriptor to wait on.
type wrappingListener struct{ net.Listener }

type wrappedConn struct{ net.Conn }

func (l wrappingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return wrappedConn{conn}, nil
}

// CloseWrite is what a wrapper should have, as *tls.Conn and *net.TCPConn do.
func (c wrappedConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func newListener(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return listener
}

func portOf(t *testing.T, addr string) uint16 {
	t.Helper()
	resolved, err := net.ResolveTCPAddr("tcp", addr)
	require.NoError(t, err)
	return uint16(resolved.Port)
}

// inspectAny is inspect of a meta process that may have ended.
func (a *actor) inspectAny(id gen.Alias) (m map[string]string) {
	a.h.t.Helper()
	a.do(func(o *owner) { m, _ = o.InspectMeta(id) })
	return m
}
