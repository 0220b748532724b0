package meta

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tcpPair gives the two ends of a real TCP connection.
func tcpPair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	far, err = net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	near, err = listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// A connection that waits for credit holds no buffer without need: there may be many that do.
func TestPassiveHoldsNoBuffer(t *testing.T) {
	near, far := tcpPair(t)
	process := &teller{told: make(chan struct{})}
	c := newConnection(&TCPConnectionOptions{Active: 1, BufferSize: 1000, WriteBuffer: 1000}, nil, newSocket(near), "")
	require.NoError(t, c.Init(process))
	c.connectSent = true
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.read()
	}()
	_, err := far.Write([]byte("x"))
	require.NoError(t, err)
	<-process.told
	<-process.told
	assert.IsType(t, MessageTCPPassive{}, process.sent[1])
	require.Eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.changed.waiting != nil
	}, 30*time.Second, time.Millisecond, "it pauses")
	c.end(ErrTerminated, nil)
	<-ended
	assert.Nil(t, c.inbox.buf)
}

// A write that fails before the read loop pauses for the first time is noticed by it.
func TestBrokenBeforePause(t *testing.T) {
	near, _ := tcpPair(t)
	c := newConnection(&TCPConnectionOptions{Active: 1, WriteBuffer: 1000}, nil, newSocket(near), "")
	require.NoError(t, c.Init(&teller{}))
	c.credit = 0
	c.writeFailed(syscall.ECONNRESET)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.read()
	}()
	select {
	case <-ended:
		assert.Equal(t, ErrReset, c.view().reason.Reason)
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for credit")
	}
}

// An end that comes before the deadline of the handshake is set does not wait for a PROXY header.
func TestEndedBeforeHandshake(t *testing.T) {
	near, _ := tcpPair(t)
	server := &tcpServer{opt: TCPServerOptions{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
	c := newConnection(&TCPConnectionOptions{HandshakeTimeout: time.Hour}, server, newSocket(near), "")
	require.NoError(t, c.Init(&teller{}))
	c.end(ErrTerminated, nil)
	established := make(chan bool)
	go func() { established <- c.establish() }()
	select {
	case got := <-established:
		assert.False(t, got)
	case <-time.After(30 * time.Second):
		t.Fatal("it waits for the header")
	}
}

// stubborn is a connection from 127.0.0.1 whose peer never closes.
type stubborn struct{ net.Conn }

func (stubborn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (stubborn) CloseWrite() error    { return nil }

// A peer that fails just before its deadline holds its slot no longer than that: we do not wait for
// it to close.
func TestRefusedWithinHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		server := &tcpServer{
			addresses: addressTable{used: map[netip.Addr]addressUse{}},
			opt:       TCPServerOptions{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			stats:     ServerStats{Refused: map[string]uint64{}, Ended: map[string]uint64{}},
		}
		server.addresses.mayLog(netip.MustParseAddr("127.0.0.1"), whyRefused(errNoProxy)) // so that it is not logged again
		c := newConnection(&TCPConnectionOptions{HandshakeTimeout: time.Second, CloseTimeout: time.Second}, server, newSocket(stubborn{near}), "")
		require.NoError(t, c.Init(&teller{}))
		since := time.Now()
		go c.Start()
		time.Sleep(900 * time.Millisecond)
		_, err := far.Write([]byte("GET / HTTP/1.1\r\n"))
		require.NoError(t, err)
		awaitOver(c)
		assert.Equal(t, time.Second, time.Since(since))
		assert.Equal(t, map[string]uint64{"PROXY header": 1}, server.stats.Refused)
	})
}

// awaitOver waits until nothing of the connection is left.
func awaitOver(c *tcpConnection) {
	for c.view().phase < over {
		c.mu.Lock()
		changed := c.changed.wait()
		c.mu.Unlock()
		if c.view().phase < over {
			<-changed
		}
	}
}

// An owner that answers is not waited for, one that has more than half a batch before it is, and
// how many messages it answers is learned.
func TestAwaitOwner(t *testing.T) {
	const size = 64
	type step struct {
		answers uint64 // to a batch of size messages
		waits   time.Duration
	}
	for name, steps := range map[string][]step{
		"all but the last": {{size - 1, 0}, {size, 0}, {size, 0}, {size, 0}},
		"half, then all":   {{size / 2, 0}, {size + size/2, 0}, {size, 0}},
		"falls behind":     {{size / 2, 0}, {size / 4, ownerTime}},
		"every second one": {{size / 2, 0}, {size / 2, ownerTime}, {size / 2, 0}, {size / 2, 0}, {size / 2, 0}, {size / 2, 0}},
		"none":             {{0, ownerTime}, {0, ownerTick}, {0, ownerTick}},
		"none, then all":   {{0, ownerTime}, {2 * size, ownerTick}, {size, 0}, {size - 1, 0}},
		"two each":         {{2 * size, 0}, {2 * size, 0}, {2 * size, 0}},
		"the first only":   {{size, 0}, {0, ownerTime}, {0, ownerTick}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer near.Close()
				defer far.Close()
				c := newConnection(&TCPConnectionOptions{}, nil, newSocket(near), nil)
				for i, s := range steps {
					c.stats.messagesIn.Add(size)
					c.stats.messagesOut.Add(s.answers)
					began := time.Now()
					c.awaitOwner()
					require.Equal(t, s.waits, time.Since(began), "batch %d", i)
				}
			})
		})
	}
}
