package meta

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"time"

	"ergo.services/ergo/gen"
)

// HandleInspect implements gen.MetaBehavior. It does not wait for the peer, but is queued behind
// messages that may. The server's HandleInspect and Connections never wait.
func (c *tcpConnection) HandleInspect(gen.PID, ...string) map[string]string {
	w := c.writer.stats()
	m := map[string]string{
		"local":            c.sock.LocalAddr().String(),
		"remote":           c.sock.RemoteAddr().String(),
		"process":          "not chosen yet",
		"age":              time.Since(c.opened).Round(time.Millisecond).String(),
		"state":            c.state(),
		"bytes waiting":    decimal(w.accepted - w.sent),
		"tls":              "off",
		"messages allowed": "unlimited",
	}
	if c.view().connectSent {
		m["process"] = fmt.Sprint(c.owner())
	}
	if c.opt.Active > 0 {
		c.mu.Lock()
		m["messages allowed"] = strconv.Itoa(max(0, c.credit))
		c.mu.Unlock()
	}
	if c.opt.CertManager != nil {
		m["tls"] = "not established"
	}
	if state := c.tlsState(); state != nil {
		peer := c.peer(state)
		m["tls"] = peer.Version
		m["cipher suite"] = tls.CipherSuiteName(state.CipherSuite)
		m["resumed"] = strconv.FormatBool(peer.Resumed)
		m["alpn"] = peer.ALPN
		m["handshake"] = c.stats.handshake.Round(time.Microsecond).String()
		m["peer"] = peer.String()
		m["peer verified"] = strconv.FormatBool(peer.Verified)
		m["peer serial"] = peer.Serial
	}
	c.opt.showLimits(m)
	c.traffic().show(m)
	return m
}

func (t Traffic) show(m map[string]string) {
	m["bytes in"], m["bytes out"] = decimal(t.BytesIn), decimal(t.BytesOut)
	m["messages in"], m["messages out"] = decimal(t.MessagesIn), decimal(t.MessagesOut)
	m["back-pressure"] = t.BackPressure.Round(time.Millisecond).String()
}

func (o *TCPConnectionOptions) showLimits(m map[string]string) {
	m["write buffer"], m["active"] = strconv.Itoa(o.WriteBuffer), limit(o.Active)
	if o.Split != nil {
		m["max frame"] = strconv.Itoa(o.MaxFrame)
	} else {
		m["buffer size"] = strconv.Itoa(o.BufferSize)
	}
	m["handshake timeout"], m["write timeout"] = o.HandshakeTimeout.String(), o.WriteTimeout.String()
	m["close timeout"], m["idle timeout"] = o.CloseTimeout.String(), "never"
	if o.IdleTimeout > 0 {
		m["idle timeout"] = o.IdleTimeout.String()
	}
}

// HandleInspect implements gen.MetaBehavior. It does not wait for any connection. With the alias of
// a connection as item it shows that connection, even while messages to it wait for a peer that
// does not read.
func (s *tcpServer) HandleInspect(from gen.PID, item ...string) map[string]string {
	if len(item) > 0 {
		for _, c := range s.announced() {
			if c.process.ID().String() == item[0] {
				return c.HandleInspect(from)
			}
		}
		return map[string]string{"error": "no open connection of this server has the alias " + item[0]}
	}
	stats := s.snapshot()
	var refused, failures uint64
	for _, refusal := range refusals {
		refused += stats.Refused[refusal.why]
		if refusal.handshake {
			failures += stats.Refused[refusal.why]
		}
	}
	limits := s.limits()
	m := map[string]string{
		"listen":                      stats.Listen,
		"accepting":                   s.acceptState(),
		"tls":                         stats.TLS,
		"pool":                        "parent",
		"connections":                 strconv.Itoa(stats.Connections),
		"connections establishing":    strconv.Itoa(stats.Establishing),
		"connections total":           decimal(stats.Accepted),
		"max connections":             limit(limits.MaxConnections),
		"max connections per address": limit(limits.MaxConnectionsPerAddress),
		"max handshake failures":      limit(limits.MaxHandshakeFailures),
		"refused":                     decimal(refused),
		"handshake failures":          decimal(failures),
		"over limit":                  decimal(stats.Refused[refusedLimit]),
		"accept errors":               decimal(stats.AcceptErrors),
		"acme challenges":             decimal(stats.Challenges),
	}
	if s.tls != nil {
		m["handshakes"] = strconv.Itoa(stats.Handshaking)
		m["max handshakes"] = strconv.Itoa(stats.MaxHandshakes)
	}
	if len(s.opt.ProcessPool) > 0 {
		m["pool"] = fmt.Sprint(s.opt.ProcessPool)
	}
	s.connection.showLimits(m)
	stats.show(m)
	return m
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func limit(n int) string {
	if n < 1 {
		return "unlimited"
	}
	return strconv.Itoa(n)
}
