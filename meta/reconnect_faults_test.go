package meta_test

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/meta"
	"github.com/ergotls/ergotls/tlstest"
)

// numberSize is how many digits say which message of a ledger it is.
const numberSize = 6

// ledger says what became of each message that an actor has sent to a connection with Reconnect.
type ledger struct {
	mu       sync.Mutex // guards all below
	sent     []string
	answered map[string]int
	unsent   map[string]int // came back, with so many bytes written
	doubtful map[string]bool
	written  uint64 // bytes, as the Disconnects say
	last     string // answer
	padding  string // of each message
	pause    chan struct{}
}

// actors are the owner of a connection, and another one that sends to it.
func (l *ledger) actors(t *testing.T) (owner, sender *actor) {
	h := newHost(t)
	return h.spawn(l.react), h.spawn(l.react)
}

func newLedger() *ledger {
	return &ledger{answered: map[string]int{}, unsent: map[string]int{}, doubtful: map[string]bool{}}
}

// react is for host.spawn. It leaves Connect and the last Disconnect to the test.
func (l *ledger) react(_ *owner, message any) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch m := message.(type) {
	case meta.MessageTCP:
		if l.pause != nil {
			pause := l.pause
			l.mu.Unlock()
			<-pause
			l.mu.Lock()
		}
		if len(m.Data) != numberSize && len(m.Data) != numberSize+len(l.padding) {
			return true // an answer behind the part of a frame that midFrame has written
		}
		text := string(m.Data[:numberSize])
		if text <= l.last {
			l.answered[text] += 2 // out of order
		}
		l.answered[text]++
		l.last = text
	case meta.MessageTCPUnsent:
		l.unsent[string(m.Data[:numberSize])] = m.Written
	case meta.MessageTCPDisconnect:
		for _, text := range l.sent {
			l.doubtful[text] = true
		}
		l.written += m.Reason.(*meta.DisconnectError).Written
		return !m.Retry.IsZero()
	default:
		return false
	}
	return true
}

func (l *ledger) say(a *actor, id gen.Alias) (text string) {
	l.mu.Lock()
	text = fmt.Sprintf("%0*d", numberSize, len(l.sent))
	l.sent = append(l.sent, text)
	l.mu.Unlock()
	a.send(id, meta.MessageTCP{Data: []byte(text + l.padding + "\n")})
	return text
}

// settled says that it is known what became of a message, as far as it ever will be.
func (l *ledger) settled(text string) func() bool {
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, back := l.unsent[text]
		return l.answered[text] > 0 || back || l.doubtful[text]
	}
}

// check closes the connection. Each byte was written, as far as a Disconnect says, or came back;
// each message was answered, came back, or was sent before a Disconnect; none is there twice.
func (l *ledger) check(t *testing.T, a, sender *actor, id gen.Alias, servers ...*lineServer) {
	t.Helper()
	sender.send(id, meta.MessageTCPClose{})
	until(a, func(m meta.MessageTCPDisconnect) bool { return m.Retry.IsZero() })
	sender.do(func(*owner) {}) // behind what has come back to it
	l.mu.Lock()
	defer l.mu.Unlock()
	var written uint64
	for _, text := range l.sent {
		part, back := l.unsent[text]
		if !back {
			part = len(text) + len(l.padding) + 1
		}
		written += uint64(part)
		seen := 0
		for _, s := range servers {
			s.mu.Lock()
			seen += s.seen[text]
			s.mu.Unlock()
		}
		assert.True(t, l.answered[text] == 1 || back || l.doubtful[text], "message %s was lost without a word", text)
		assert.LessOrEqual(t, l.answered[text], 1, "message %s was answered twice", text)
		assert.LessOrEqual(t, seen, 1, "message %s was written twice", text)
		assert.False(t, back && (seen > 0 || l.answered[text] > 0), "message %s came back, and was written", text)
	}
	assert.Equal(t, written, l.written, "bytes written")
}

// fault is a way in which a server ends under traffic.
type fault struct {
	restarts int // in each mode
	end      func(conn, stream net.Conn)
	options  func(*meta.TCPConnectionOptions)
	slow     bool // the owner, which handles nothing until the server is there again
}

var faults = map[string]fault{
	"closed":        {restarts: 200, end: closed}, // a thousand times in five modes
	"reset":         {end: reset},
	"in order":      {end: inOrder},
	"in a frame":    {end: midFrame},
	"hangs":         {restarts: 4, end: hangs, options: func(o *meta.TCPConnectionOptions) { o.IdleTimeout = 20 * time.Millisecond }},
	"nothing kept":  {end: closed, options: func(o *meta.TCPConnectionOptions) { o.Reconnect.Keep = false }},
	"little kept":   {end: closed, options: func(o *meta.TCPConnectionOptions) { o.WriteBuffer = 10 }},
	"owner is slow": {end: closed, slow: true},
	"another is down": {end: closed, options: func(o *meta.TCPConnectionOptions) {
		o.Addrs = append([]string{"127.0.0.1:1"}, o.Addrs...)
	}},
	"certificates change": {end: closed, options: func(o *meta.TCPConnectionOptions) {
		if m, ok := o.CertManager.(manager); ok && len(m.client.Certificates) > 0 {
			own, handshakes := m.client.Clone(), new(atomic.Int64)
			other := generate(modesCA(), "other.example.test")
			own.Certificates = nil
			own.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if handshakes.Add(1)%2 == 0 {
					return &other, nil
				}
				return &m.client.Certificates[0], nil
			}
			m.client = own
			o.CertManager = m
		}
	}},
}

// The server is started again and again while the client talks, whatever ends it.
func TestReconnectUnderTraffic(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, m mode) {
				server := newLineServer(t, m)
				l := newLedger()
				a, sender := l.actors(t)
				options := m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: 5 * time.Millisecond, Keep: true})
				if f.options != nil {
					f.options(&options)
				}
				id := a.connect(options)
				for i := range cmp.Or(f.restarts, 20) {
					until(a, always[meta.MessageTCPConnect])
					if f.slow {
						l.mu.Lock()
						l.pause = make(chan struct{})
						l.mu.Unlock()
					}
					var last string
					for range 5 {
						last = l.say(sender, id)
					}
					if i%2 == 0 && !f.slow { // else the server is stopped while they are on their way
						eventually(t, l.settled(last), "messages are answered")
					}
					server.stopBy(f.end)
					l.say(sender, id) // while it is down
					server.start()
					if f.slow {
						close(l.pause)
					}
				}
				until(a, always[meta.MessageTCPConnect])
				eventually(t, l.settled(l.say(sender, id)), "the last message is answered")
				l.check(t, a, sender, id, server)
				assert.NotEmpty(t, l.answered)
			})
		})
	}
}

// Servers that are drained close their connections in order. The client goes to the other one.
func TestReconnectToAnotherWhileDrained(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		h := newHost(t)
		var addrs []string
		var servers [2]gen.Alias
		operator := h.spawn(func(o *owner, message any) bool {
			switch m := message.(type) {
			case meta.MessageTCP:
				o.SendAlias(m.ID, meta.MessageTCP{Data: append(m.Data, '\n')})
			case meta.MessageTCPDraining:
				o.SendAlias(m.ID, meta.MessageTCPClose{})
			}
			return true
		})
		options := meta.TCPServerOptions{CertManager: m.manager, Split: m.reconnecting(t, "", meta.Reconnect{}).Split}
		for i := range servers {
			var addr string
			servers[i], addr = operator.listen(options)
			addrs = append(addrs, addr)
		}
		l := newLedger()
		a, sender := l.actors(t)
		client := m.reconnecting(t, "", meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond, Keep: true})
		client.Addrs = addrs
		id := a.connect(client)
		for range 20 {
			connect := until(a, always[meta.MessageTCPConnect])
			for range 5 {
				l.say(sender, id)
			}
			i := 0
			if connect.RemoteAddr.String() == addrs[1] {
				i = 1
			}
			operator.send(servers[i], meta.MessageTCPDrain{Timeout: testTimeout})
			for range 5 {
				l.say(sender, id)
			}
			eventually(t, func() bool { return operator.inspectAny(servers[i]) == nil }, "it has ended")
			options.Host, options.Port = "127.0.0.1", portOf(t, addrs[i])
			servers[i], _ = operator.listen(options)
		}
		until(a, always[meta.MessageTCPConnect])
		eventually(t, l.settled(l.say(sender, id)), "the last message is answered")
		l.check(t, a, sender, id)
	})
}

// What a connection has taken and not written when it ends comes back, or is written to the next
// one, in order.
func TestReconnectToPeerThatDoesNotRead(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		for _, keep := range []bool{false, true} {
			server := newLineServer(t, m)
			// An echo of all could leave both ends waiting for the other to read: a connection that has
			// so much to write reads only some of it.
			server.brief = true
			server.stop()
			server.deaf.Store(true)
			server.start()
			l := newLedger()
			l.padding = strings.Repeat("x", 16<<10)
			a, sender := l.actors(t)
			connection, err := meta.CreateTCPConnection(m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond, Keep: keep}))
			require.NoError(t, err)
			var id gen.Alias
			a.do(func(o *owner) { id, err = o.SpawnMeta(connection, gen.MetaOptions{}) })
			require.NoError(t, err)
			until(a, always[meta.MessageTCPConnect])
			for range 1000 { // more than the kernel takes
				l.say(sender, id)
			}
			eventually(t, func() bool {
				return meta.Connections(connection)[0].BackPressure > 0 || meta.Connections(connection)[0].BytesWaiting > 32<<10
			}, "it waits for its peer")
			server.stopBy(reset)
			server.deaf.Store(false)
			server.start()
			until(a, always[meta.MessageTCPConnect])
			eventually(t, l.settled(l.say(sender, id)), "the last message is answered")
			l.check(t, a, sender, id, server)
			assert.NotEmpty(t, l.answered)
			assert.True(t, keep || len(l.unsent) > 0)
		}
	})
}

// A peer that reads again after WriteTimeout gets what our kernel had taken. Nothing of that has
// come back to its sender, which may send it to another connection.
func TestUnsentIsNotDelivered(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		server.stop()
		server.deaf.Store(true)
		server.hear = make(chan struct{})
		server.start()
		l := newLedger()
		l.padding = strings.Repeat("x", 1000)
		a, sender := l.actors(t)
		options := m.reconnecting(t, server.addr, meta.Reconnect{MinInterval: time.Hour, MaxInterval: time.Hour})
		options.WriteTimeout = 200 * time.Millisecond
		id := a.connect(options)
		until(a, always[meta.MessageTCPConnect])
		var last string
		for range 16_000 { // more than the kernel takes
			last = l.say(sender, id)
		}
		eventually(t, l.settled(last), "the last message came back")
		close(server.hear)
		server.stopBy(hangs)
		server.serving.Wait() // until it has read all
		l.check(t, a, sender, id, server)
		for _, text := range l.sent {
			_, back := l.unsent[text]
			require.Equal(t, !back, server.seen[text] == 1, "message %s: came back: %t, was read: %d", text, back, server.seen[text])
		}
	})
}

// A name is looked up at each try. A look-up that hangs ends after DialTimeout, or with the
// connection.
func TestReconnectWithNames(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		server := newLineServer(t, m)
		name := strings.ReplaceAll(strings.ToLower(t.Name()), "/", ".") + "."
		names.set(name, "127.0.0.99") // where nobody listens
		l := newLedger()
		a, sender := l.actors(t)
		options := m.reconnecting(t, name+":"+strconv.Itoa(int(portOf(t, server.addr))), meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond, Keep: true})
		options.DialTimeout = 50 * time.Millisecond
		id := a.connect(options)
		l.say(sender, id)
		failed := func(cause string) func() bool {
			return func() bool { return strings.Contains(a.inspect(id)["last end"], cause) }
		}
		eventually(t, failed("connection refused"), "it says so")
		names.set(name, "127.0.0.1")
		until(a, always[meta.MessageTCPConnect])
		eventually(t, l.settled(l.say(sender, id)), "messages are answered")
		names.set(name, "hangs")
		server.stop()
		l.say(sender, id)
		eventually(t, failed("i/o timeout"), "it says so")
		server.start()
		names.set(name, "127.0.0.1")
		until(a, always[meta.MessageTCPConnect])
		eventually(t, l.settled(l.say(sender, id)), "messages are answered")
		names.set(name, "")
		server.stop()
		l.say(sender, id)
		eventually(t, failed("no such host"), "it says so")
		l.check(t, a, sender, id, server)

		names.set(name, "hangs")
		options.DialTimeout = time.Hour
		again := newLedger()
		a, sender = again.actors(t)
		id = a.connect(options)
		again.say(sender, id)
		again.check(t, a, sender, id)
		names.set(name, "") // ends the look-ups
	})
}

// A client whose certificate was replaced moves to it when its manager recycles its connections.
func TestReconnectWithNewCertificate(t *testing.T) {
	ca := tlstest.NewCA(t)
	issue := func() tls.Certificate { return ca.Issue(t, tlstest.Leaf{CommonName: "client"}).Certificate() }
	manager, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{issue()}, RootCAs: ca.Pool()}})
	require.NoError(t, err)
	defer manager.Close()
	servers, err := certmanager.New(certmanager.Options{Source: certmanager.Static{Certificates: []tls.Certificate{issue(), ca.Issue(t, tlstest.Leaf{}).Certificate()}, ClientCAs: ca.Pool()}})
	require.NoError(t, err)
	defer servers.Close()
	server := newHost(t).spawn(func(o *owner, message any) bool {
		m, ok := message.(meta.MessageTCP)
		if ok {
			o.SendAlias(m.ID, meta.MessageTCP{Data: append(m.Data, '\n')})
		}
		return ok
	})
	_, addr := server.listen(meta.TCPServerOptions{CertManager: servers, Split: bufio.ScanLines})
	l := newLedger()
	a, sender := l.actors(t)
	id := a.connect(meta.TCPConnectionOptions{Addrs: []string{addr}, CertManager: manager, ServerName: "localhost", Split: bufio.ScanLines,
		Reconnect: &meta.Reconnect{MinInterval: time.Millisecond, MaxInterval: time.Millisecond, Keep: true}})
	for range 20 {
		until(a, always[meta.MessageTCPConnect])
		serial := manager.GetCertificate().Leaf.SerialNumber.Text(16)
		assert.Equal(t, serial, until(server, always[meta.MessageTCPConnect]).Peer.Serial)
		for range 5 {
			l.say(sender, id)
		}
		manager.Update(issue())
		assert.Equal(t, 1, manager.Recycle(manager.Status().Generation, 0))
	}
	until(a, always[meta.MessageTCPConnect])
	eventually(t, l.settled(l.say(sender, id)), "the last message is answered")
	l.check(t, a, sender, id)
}
