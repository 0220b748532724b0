package meta

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"ergo.services/ergo/gen"
)

// connectionStats are what a connection counts. They are read by Inspect at any time.
type connectionStats struct {
	opened      time.Time
	bytesIn     atomic.Uint64
	messagesIn  atomic.Uint64
	messagesOut atomic.Uint64
	active      atomic.Int64 // unix nanoseconds of the last read or write, where IdleTimeout is set
	tls         atomic.Pointer[tlsSummary]
	peer        atomic.Pointer[Peer]
}

// tlsSummary is what Inspect shows of the TLS state: ConnectionState itself blocks during a handshake.
type tlsSummary struct {
	version, suite uint16
	resumed        bool
	alpn           string
	handshake      time.Duration
}

// traffic is what one connection or several have carried.
type traffic struct{ bytesIn, bytesOut, messagesIn, messagesOut uint64 }

func (t *traffic) add(other traffic) {
	t.bytesIn += other.bytesIn
	t.bytesOut += other.bytesOut
	t.messagesIn += other.messagesIn
	t.messagesOut += other.messagesOut
}

func (t *traffic) show(m map[string]string) {
	m["bytes in"], m["bytes out"] = decimal(t.bytesIn), decimal(t.bytesOut)
	m["messages in"], m["messages out"] = decimal(t.messagesIn), decimal(t.messagesOut)
}

func (c *tcpConnection) traffic() traffic {
	_, written := c.writer.counts()
	return traffic{c.stats.bytesIn.Load(), written, c.stats.messagesIn.Load(), c.stats.messagesOut.Load()}
}

// serverStats are what a server counts beside the sums over its connections.
type serverStats struct {
	refused           atomic.Uint64 // all that no actor has heard of
	handshakeFailures atomic.Uint64
	overLimit         atomic.Uint64
	acceptErrors      atomic.Uint64
	challenges        atomic.Uint64 // of CAs that validate a name
}

// HandleInspect implements gen.MetaBehavior. It does not wait for the peer; where a message before it does, the server's does not.
func (c *tcpConnection) HandleInspect(gen.PID, ...string) map[string]string {
	accepted, written := c.writer.counts()
	m := map[string]string{
		"local":            c.sock.LocalAddr().String(),
		"remote":           c.sock.RemoteAddr().String(),
		"process":          "not chosen yet",
		"age":              time.Since(c.stats.opened).Round(time.Millisecond).String(),
		"state":            c.state(),
		"bytes waiting":    decimal(accepted - written),
		"write buffer":     strconv.Itoa(c.opt.WriteBuffer),
		"tls":              "off",
		"messages allowed": "unlimited",
	}
	if c.connected.Load() {
		m["process"] = fmt.Sprint(c.to)
	}
	if c.opt.Active > 0 {
		m["messages allowed"] = strconv.FormatInt(max(0, c.credit.Load()), 10)
	}
	if c.opt.CertManager != nil {
		m["tls"] = "not established"
	}
	if t := c.stats.tls.Load(); t != nil {
		m["tls"] = tls.VersionName(t.version)
		m["cipher suite"] = tls.CipherSuiteName(t.suite)
		m["resumed"] = strconv.FormatBool(t.resumed)
		m["alpn"] = t.alpn
		m["handshake"] = t.handshake.Round(time.Microsecond).String()
	}
	if p := c.stats.peer.Load(); p != nil {
		m["peer"] = p.String()
		m["peer verified"] = strconv.FormatBool(p.Verified)
		m["peer serial"] = p.Serial
	}
	c.opt.showTimeouts(m)
	t := c.traffic()
	t.show(m)
	return m
}

func (c *tcpConnection) state() string {
	switch ended := c.ended.Load(); {
	case ended != nil:
		return "ending: " + ended.Error()
	case !c.connected.Load():
		return "connecting"
	case c.paused():
		return "passive"
	default:
		return "active"
	}
}

func (o *TCPConnectionOptions) showTimeouts(m map[string]string) {
	m["handshake timeout"], m["write timeout"] = o.HandshakeTimeout.String(), o.WriteTimeout.String()
	m["close timeout"], m["idle timeout"] = o.CloseTimeout.String(), "never"
	if o.IdleTimeout > 0 {
		m["idle timeout"] = o.IdleTimeout.String()
	}
}

// HandleInspect implements gen.MetaBehavior. It does not wait for any connection. With the alias of a connection as item it shows that one,
// also while messages to it wait for a peer that does not read.
func (s *tcpServer) HandleInspect(from gen.PID, item ...string) map[string]string {
	if len(item) > 0 {
		return s.inspectConnection(from, item[0])
	}
	s.mu.Lock()
	total := s.ended
	connected := 0
	for c := range s.open {
		total.add(c.traffic())
		if c.connected.Load() {
			connected++
		}
	}
	open, accepted := len(s.open), s.accepted
	s.mu.Unlock()
	m := map[string]string{
		"listen":                      s.listener.Addr().String(),
		"tls":                         s.describeTLS(),
		"pool":                        "parent",
		"connections":                 strconv.Itoa(connected),
		"connections establishing":    strconv.Itoa(open - connected),
		"connections total":           decimal(accepted),
		"max connections":             limit(s.opt.MaxConnections),
		"max connections per address": limit(s.opt.MaxConnectionsPerAddress),
		"max handshake failures":      limit(s.opt.MaxHandshakeFailures),
		"refused":                     decimal(s.stats.refused.Load()),
		"handshake failures":          decimal(s.stats.handshakeFailures.Load()),
		"over limit":                  decimal(s.stats.overLimit.Load()),
		"accept errors":               decimal(s.stats.acceptErrors.Load()),
		"acme challenges":             decimal(s.stats.challenges.Load()),
	}
	if s.gate != nil {
		m["handshakes"] = strconv.Itoa(len(s.gate.places))
		m["max handshakes"] = strconv.Itoa(cap(s.gate.places))
	}
	if len(s.opt.ProcessPool) > 0 {
		m["pool"] = fmt.Sprint(s.opt.ProcessPool)
	}
	s.connection.showTimeouts(m)
	total.show(m)
	return m
}

func (s *tcpServer) inspectConnection(from gen.PID, alias string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		if c.connected.Load() && c.process.ID().String() == alias {
			return c.HandleInspect(from)
		}
	}
	return map[string]string{"error": "no open connection of this server has the alias " + alias}
}

func (s *tcpServer) describeTLS() string {
	switch {
	case s.tls == nil:
		return "off"
	case s.opt.StartTLS:
		return "StartTLS"
	default:
		return "on"
	}
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func limit(n int) string {
	if n == 0 {
		return "unlimited"
	}
	return strconv.Itoa(n)
}
