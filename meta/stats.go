package meta

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
)

// ServerStats are the counters of a server since its creation, and its current state. Peers cannot
// make its maps and slices grow.
type ServerStats struct {
	Listen string // address
	TLS    string // "on", "off" or "StartTLS"

	Connections    int  // announced to an actor
	Establishing   int  // not yet announced
	MaxConnections int  // 0: no limit
	Suspended      bool // by MessageTCPSuspend
	Handshaking    int  // handshakes that use the CPU at the moment
	MaxHandshakes  int  // the limit for Handshaking; 0: no TLS

	Accepted     uint64 // connections, including those refused later
	AcceptErrors uint64 // failed calls of accept, for example for lack of a descriptor
	Challenges   uint64 // handshakes of CAs that validate a name (RFC 8737)
	// Refused are the connections never announced to an actor, by reason: see RefusedReasons. Failed
	// upgrades by StartTLS are counted here too.
	Refused    map[string]uint64
	Ended      map[string]uint64 // announced connections that have ended, by the text of the sentinel
	Handshakes []HandshakeStats  // complete ones

	Traffic // of all connections, including ended ones
}

// Traffic is the traffic of one or more connections.
type Traffic struct {
	// Bytes read and written, without the overhead of TLS; messages to and from actors.
	BytesIn, BytesOut, MessagesIn, MessagesOut uint64
	// BackPressure is the total time spent waiting for peers to take data.
	BackPressure time.Duration
}

// HandshakeStats are the complete TLS handshakes of one kind.
type HandshakeStats struct {
	Version string        // for example "TLS 1.3"
	Resumed bool          // false: full handshakes
	Count   uint64        // since the server was created
	Total   time.Duration // the sum of their durations, including waits for the peer
	// Buckets are the numbers of handshakes that took at most the time at the same index of
	// HandshakeBuckets, so they are cumulative.
	Buckets [len(HandshakeBuckets)]uint64
}

// HandshakeBuckets are the upper bounds of HandshakeStats.Buckets.
var HandshakeBuckets = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second,
}

// ConnectionStats are the counters of an open connection.
type ConnectionStats struct {
	ID     gen.Alias // the connection
	Peer   Peer      // the other side
	Opened time.Time // when it was accepted or connected
	State  string    // "active", "passive", or "held back: " or "ending: " with the reason

	Traffic
	BytesWaiting uint64 // to be written
}

// Stats returns the counters of server, the result of [CreateTCPServer]; it panics for anything
// else. Any goroutine may call it, even after the server has ended. It does not wait for
// connections.
func Stats(server gen.MetaBehavior) ServerStats { return mustServer(server).snapshot() }

// Connections returns the open connections of a server after their MessageTCPConnect, the oldest
// first. For the result of [CreateTCPConnection] it returns that connection once it has been
// established, without Reconnect even after its end. It panics for anything else. Any goroutine
// may call it. Unlike Ergo's Inspect, it does not wait for a connection that is writing to its
// peer.
func Connections(behavior gen.MetaBehavior) (all []ConnectionStats) {
	var open []*tcpConnection
	switch b := behavior.(type) {
	case *tcpConnection:
		open = append(open, b)
	case *reconnecting:
		if c, up := b.current(); up {
			open = append(open, c)
		}
	default:
		open = mustServer(b).announced()
	}
	for _, c := range open {
		if c.view().connectSent {
			all = append(all, c.snapshot())
		}
	}
	slices.SortFunc(all, func(a, b ConnectionStats) int { return a.Opened.Compare(b.Opened) })
	return all
}

func mustServer(server gen.MetaBehavior) *tcpServer {
	s, ok := server.(*tcpServer)
	if !ok {
		panic(fmt.Sprintf("meta: %T is not what CreateTCPServer returns", server))
	}
	return s
}

func (t *Traffic) add(other Traffic) {
	t.BytesIn += other.BytesIn
	t.BytesOut += other.BytesOut
	t.MessagesIn += other.MessagesIn
	t.MessagesOut += other.MessagesOut
	t.BackPressure += other.BackPressure
}

// connectionStats are the counters of a connection. Any goroutine reads them. Start's goroutine
// writes them, except messagesOut, which the message goroutine writes.
type connectionStats struct {
	bytesIn     atomic.Uint64
	messagesIn  atomic.Uint64
	messagesOut atomic.Uint64
	tls         atomic.Pointer[tls.Conn] // set when the handshake is complete
	handshake   time.Duration            // valid if tls is set
}

func (c *tcpConnection) traffic() Traffic {
	w := c.writer.stats()
	return Traffic{c.stats.bytesIn.Load(), w.sent + w.kept, c.stats.messagesIn.Load(), c.stats.messagesOut.Load(), w.waited}
}

// handshake counts a complete handshake.
func (s *ServerStats) handshake(version uint16, resumed bool, took time.Duration) {
	name := tls.VersionName(version)
	i := slices.IndexFunc(s.Handshakes, func(h HandshakeStats) bool { return h.Version == name && h.Resumed == resumed })
	if i < 0 {
		i = len(s.Handshakes)
		s.Handshakes = append(s.Handshakes, HandshakeStats{Version: name, Resumed: resumed})
	}
	h := &s.Handshakes[i]
	h.Count++
	h.Total += took
	for i := len(HandshakeBuckets) - 1; i >= 0 && took <= HandshakeBuckets[i]; i-- {
		h.Buckets[i]++
	}
}

func (s *tcpServer) snapshot() ServerStats {
	s.mu.Lock()
	out, open := s.stats, slices.Collect(maps.Keys(s.open))
	out.Refused, out.Ended, out.Handshakes = maps.Clone(out.Refused), maps.Clone(out.Ended), slices.Clone(out.Handshakes)
	out.MaxConnections, out.MaxHandshakes, out.Suspended = max(0, s.max.MaxConnections), max(0, s.max.MaxHandshakes), s.suspended
	s.mu.Unlock()
	out.Handshaking = s.handshakes.inUse()
	for _, c := range open { // so that the sums do not shrink if connections end meanwhile
		out.add(c.traffic())
		if c.view().connectSent {
			out.Connections++
		}
	}
	out.Establishing = len(open) - out.Connections
	return out
}

// announced returns the connections announced to an actor. It checks each without holding mu, which
// the accept loop needs.
func (s *tcpServer) announced() []*tcpConnection {
	s.mu.Lock()
	open := slices.Collect(maps.Keys(s.open))
	s.mu.Unlock()
	return slices.DeleteFunc(open, func(c *tcpConnection) bool {
		p := c.view()
		return !p.connectSent || p.disconnectSent
	})
}

// tlsState returns the TLS state, nil if there is none yet. It does not block: ConnectionState
// blocks only during a handshake.
func (c *tcpConnection) tlsState() *tls.ConnectionState {
	var conn tlsConn
	if made := c.stats.tls.Load(); made != nil {
		conn = made
	} else if c.given != nil && c.view().connectSent {
		conn = c.given
	} else {
		return nil
	}
	state := conn.ConnectionState()
	return &state
}

func (c *tcpConnection) snapshot() ConnectionStats {
	w := c.writer.stats()
	return ConnectionStats{
		ID: c.process.ID(), Peer: c.peer(c.tlsState()), Opened: c.opened, State: c.state(), Traffic: c.traffic(), BytesWaiting: w.accepted - w.sent,
	}
}
