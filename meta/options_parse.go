package meta

import (
	"cmp"
	"math"
	"net"
	"os"
	"runtime"
	"strconv"

	"ergo.services/ergo/gen"
)

// parse checks the options and returns the options of accepted connections with defaults filled in.
func (o *TCPServerOptions) parse() (*TCPConnectionOptions, error) {
	connection := TCPConnectionOptions{
		CertManager: o.CertManager, InsecureSkipVerify: o.InsecureSkipVerify, NextProtos: o.NextProtos, StartTLS: o.StartTLS,
		BufferSize: o.BufferSize, BufferPool: o.BufferPool, Split: o.Split, MaxFrame: o.MaxFrame, Active: o.Active,
		HandshakeTimeout: o.HandshakeTimeout, WriteTimeout: o.WriteTimeout, WriteBuffer: o.WriteBuffer,
		IdleTimeout: o.IdleTimeout, CloseTimeout: o.CloseTimeout,
		KeepAlivePeriod: o.KeepAlivePeriod, KeepAliveCount: o.KeepAliveCount, UserTimeout: o.UserTimeout,
		Node: o.Node, HalfClose: o.HalfClose, KeepAliveMessage: o.KeepAliveMessage, KeepAliveMessagePeriod: o.KeepAliveMessagePeriod, MaxLifetime: o.MaxLifetime,
	}
	var c check
	if !c.notNil("Listener", o.Listener) {
		return nil, c.err()
	}
	c.numbers("", *o)
	c.host("Host", o.Host)
	connection.parseShared(&c, true)
	o.checkLimits(&c)
	c.refuse(o.AlarmLow > 0 && o.AlarmLow >= o.AlarmHigh, "AlarmLow: is %d; it must be less than AlarmHigh, which is %d", o.AlarmLow, o.AlarmHigh)
	c.refuse(o.MaxConnections > 0 && o.AlarmHigh > o.MaxConnections, "AlarmHigh: is %d, more than MaxConnections, %d, so it can't be reached", o.AlarmHigh, o.MaxConnections)
	o.AlarmLow = cmp.Or(o.AlarmLow, o.AlarmHigh*9/10)
	hostPort := o.Host != "" || o.Port != 0
	c.refuse(o.Listener != nil && (hostPort || o.UnixPath != "" || o.ReusePort),
		"Listener: it is open already; leave Host, Port, UnixPath and ReusePort unset")
	c.refuse(o.UnixPath != "" && (hostPort || o.ReusePort),
		"UnixPath: a unix socket has no Host, Port or ReusePort; leave them unset")
	c.unixPath(o.UnixPath)
	c.refuse(o.ReusePort && reusePort == nil, "ReusePort: this system has no SO_REUSEPORT")
	c.refuse(o.UnixMode != 0 && o.UnixPath == "", "UnixMode: has no effect without UnixPath")
	c.refuse(o.UnixOwner != "" && o.UnixPath == "", "UnixOwner: has no effect without UnixPath")
	_, _, err := unixOwner(o.UnixOwner)
	c.refuse(err != nil, "UnixOwner: %w", err)
	c.refuse(abstract(o.UnixPath) && (o.UnixMode != 0 || o.UnixOwner != ""), "UnixMode, UnixOwner: the abstract socket %q has no file; leave them unset", o.UnixPath)
	c.refuse(o.UnixMode&^os.ModePerm != 0, "UnixMode: is %s; use only permissions, such as 0o660", o.UnixMode)
	c.refuse(o.unix() && len(o.ProxyFrom) > 0, "ProxyFrom: peers of a unix socket have no address to trust; leave it unset")
	c.refuse(o.CertManager != nil && isTLSListener(o.Listener), "CertManager: %s", errTwiceTLS)
	c.refuse(o.CertManager == nil && len(o.ProxyFrom) == 0 && o.Listener == nil && o.HandshakeTimeout > 0,
		"HandshakeTimeout: there is no handshake without TLS and no header without ProxyFrom; set CertManager")
	c.refuse(o.ConnectionMeta.MailboxSize < 0, "ConnectionMeta.MailboxSize: is %d; use 0 for no limit, or a positive number", o.ConnectionMeta.MailboxSize)
	for i, name := range o.ProcessPool {
		c.refuse(name == "", "ProcessPool[%d]: is empty; name a registered process", i)
	}
	for i, prefix := range o.ProxyFrom {
		c.refuse(!prefix.IsValid(), "ProxyFrom[%d]: is not a network; make it with netip.ParsePrefix", i)
	}
	return &connection, c.err()
}

// unix reports whether the listener is a unix socket.
func (o *TCPServerOptions) unix() bool {
	return o.UnixPath != "" || o.Listener != nil && o.Listener.Addr().Network() == "unix"
}

// limits returns the limits that MessageTCPLimits can change; -1 means no limit.
func (o *TCPServerOptions) limits() MessageTCPLimits {
	m := MessageTCPLimits{
		MaxConnections: cmp.Or(o.MaxConnections, -1), MaxConnectionsPerAddress: cmp.Or(o.MaxConnectionsPerAddress, -1),
		MaxHandshakes: -1, MaxHandshakeFailures: cmp.Or(o.MaxHandshakeFailures, -1),
	}
	if o.CertManager != nil {
		m.MaxHandshakes = cmp.Or(o.MaxHandshakes, 2*runtime.GOMAXPROCS(0))
	}
	return m
}

// checkLimits checks the limits that MessageTCPLimits can change, except for negative numbers.
func (o *TCPServerOptions) checkLimits(c *check) {
	c.refuse(o.unix() && (o.MaxConnectionsPerAddress > 0 || o.MaxHandshakeFailures > 0),
		"MaxConnectionsPerAddress, MaxHandshakeFailures: peers of a unix socket have no address; use MaxConnections")
	c.refuse(o.CertManager == nil && o.MaxHandshakes > 0, "MaxHandshakes: there are no handshakes without TLS; set CertManager")
	c.refuse(o.CertManager == nil && o.MaxHandshakeFailures > 0, "MaxHandshakeFailures: there are no handshakes without TLS; set CertManager")
}

// parse checks the options and fills in the defaults.
func (o *TCPConnectionOptions) parse() error {
	var c check
	c.refuse(o.HandshakeTimeout > 0 && o.CertManager == nil, "HandshakeTimeout: there is no handshake without TLS; set CertManager")
	c.numbers("", *o)
	c.host("Host", o.Host)
	o.parseShared(&c, false)
	c.unixPath(o.UnixPath)
	c.refuse(o.UnixPath != "" && (o.Host != "" || o.Port != 0), "UnixPath: a unix socket has no Host or Port; leave them unset")
	c.refuse(len(o.Addrs) > 0 && (o.Host != "" || o.Port != 0 || o.UnixPath != ""), "Addrs: has hosts and ports; leave Host, Port and UnixPath unset")
	for i, addr := range o.Addrs {
		host, port, err := net.SplitHostPort(addr)
		n, wrong := strconv.ParseUint(port, 10, 16)
		c.refuse(err != nil || host == "" || n == 0 || wrong != nil, "Addrs[%d]: %q is not a host and a port, such as db.example.com:5432", i, addr)
	}
	c.refuse(o.UnixPath == "" && o.Port == 0 && len(o.Addrs) == 0, "Port: is 0; set the port to connect to")
	if o.Proxy != nil {
		header := *o.Proxy
		o.Proxy = &header
		if c.notNil("Proxy.Source", header.Source) && c.notNil("Proxy.Destination", header.Destination) {
			_, err := header.format()
			c.refuse(err != nil, "Proxy: %w", err)
		}
	}
	if o.Reconnect != nil {
		c.refuse(o.StartTLS, "Reconnect: can't be combined with StartTLS: a message meant for one connection after its upgrade could be written in the clear on the next")
		o.Reconnect = o.Reconnect.parse(&c)
	}
	c.host("ServerName", o.ServerName)
	c.refuse(o.ServerName != "" && o.CertManager == nil, "ServerName: has no effect without TLS; set CertManager")
	o.DialTimeout = cmp.Or(o.DialTimeout, DefaultDialTimeout)
	o.Host = cmp.Or(o.Host, "localhost")
	return c.err()
}

// parse checks the values and returns a copy with the defaults filled in.
func (o *Reconnect) parse(c *check) *Reconnect {
	ready := *o
	c.numbers("Reconnect.", ready)
	ready.MinInterval = cmp.Or(ready.MinInterval, DefaultMinInterval)
	ready.MaxInterval = cmp.Or(ready.MaxInterval, max(DefaultMaxInterval, ready.MinInterval))
	c.refuse(ready.MinInterval > ready.MaxInterval, "Reconnect.MinInterval: is %s, more than MaxInterval, %s", ready.MinInterval, ready.MaxInterval)
	return &ready
}

// parseShared is parse for the fields that servers and outgoing connections share.
func (o *TCPConnectionOptions) parseShared(c *check, server bool) {
	c.manager(o.CertManager, server)
	c.notNil("Node", o.Node)
	c.refuse(o.WriteBuffer > math.MaxInt/readAhead, "WriteBuffer: is %d; use at most %d", o.WriteBuffer, math.MaxInt/readAhead)
	c.refuse(o.KeepAliveMessagePeriod > 0 && len(o.KeepAliveMessage) == 0, "KeepAliveMessagePeriod: has no effect without KeepAliveMessage")
	o.KeepAliveMessagePeriod = cmp.Or(o.KeepAliveMessagePeriod, gen.DefaultKeepAlivePeriod)
	c.refuse(o.KeepAlivePeriod > maxKeepAlive, "KeepAlivePeriod: is %s; use at most %s, or a negative duration for no probes", o.KeepAlivePeriod, maxKeepAlive)
	c.refuse(o.KeepAliveCount > maxKeepAliveCount, "KeepAliveCount: is %d; use 0 for the default, or at most %d", o.KeepAliveCount, maxKeepAliveCount)
	c.refuse(o.UserTimeout > maxUserTimeout, "UserTimeout: is %s; use at most %s", o.UserTimeout, maxUserTimeout)
	c.refuse(o.UserTimeout > 0 && setUserTimeout == nil, "UserTimeout: this system has no TCP_USER_TIMEOUT; use IdleTimeout")
	c.refuse(o.CertManager == nil && o.InsecureSkipVerify,
		"InsecureSkipVerify: there is nothing to verify without TLS; set CertManager or leave it unset")
	c.refuse(o.CertManager == nil && o.StartTLS, "StartTLS: set CertManager too")
	c.refuse(o.CertManager == nil && len(o.NextProtos) > 0, "NextProtos: have no effect without TLS; set CertManager")
	for i, name := range o.NextProtos {
		c.refuse(len(name) < 1 || len(name) > 255, "NextProtos[%d]: has %d bytes; ALPN wants 1 to 255", i, len(name))
	}
	c.refuse(o.StartTLS && o.Active != 1,
		"StartTLS: set Active: 1 too, so that nothing that was sent together with the STARTTLS command is delivered (CVE-2011-0411)")
	c.refuse(o.Split == nil && o.MaxFrame != 0, "MaxFrame: has no effect without Split")
	c.refuse(o.Split != nil && o.BufferSize != 0, "BufferSize: has no effect with Split; set MaxFrame")
	c.refuse(o.Split != nil && o.BufferPool != nil, "BufferPool: can't be combined with Split, whose messages have the frames' sizes")

	o.BufferSize = cmp.Or(o.BufferSize, gen.DefaultTCPBufferSize)
	if o.BufferPool != nil {
		value := o.BufferPool.Get()
		_, ok := value.([]byte)
		c.refuse(value != nil && !ok, "BufferPool: has a %T; its values must be []byte", value)
		o.BufferPool.Put(value)
	}
	o.MaxFrame = cmp.Or(o.MaxFrame, DefaultMaxFrame)
	if o.Split != nil {
		largest := largestFrame(o.Split)
		c.refuse(largest > max(0, o.MaxFrame), "MaxFrame: is %d, but FixedLength or LengthPrefixed makes frames of %d bytes with their header; set it to that", o.MaxFrame, largest)
		o.Split = protectSplit(o.Split)
	}
	o.WriteBuffer = cmp.Or(o.WriteBuffer, DefaultWriteBuffer)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, DefaultHandshakeTimeout)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, DefaultWriteTimeout)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, DefaultCloseTimeout)
	o.KeepAlivePeriod = cmp.Or(o.KeepAlivePeriod, gen.DefaultKeepAlivePeriod)
}
