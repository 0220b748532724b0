package meta_test

import (
	"bufio"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"ergo.services/ergo/gen"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/meta"
)

// A ready splitter whose frames MaxFrame never lets through is refused; one that fits, or leaves it
// to MaxFrame, is not.
func TestSplitFitsMaxFrame(t *testing.T) {
	fixed := func(n int) bufio.SplitFunc {
		split, err := meta.FixedLength(n)
		require.NoError(t, err)
		return split
	}
	prefixed := func(l meta.LengthPrefixed) bufio.SplitFunc {
		split, err := l.Split()
		require.NoError(t, err)
		return split
	}
	for name, test := range map[string]struct {
		split    bufio.SplitFunc
		maxFrame int
		refused  bool
	}{
		"fixed fits the default":          {fixed(meta.DefaultMaxFrame), 0, false},
		"fixed over the default":          {fixed(meta.DefaultMaxFrame + 1), 0, true},
		"fixed over MaxFrame":             {fixed(11), 10, true},
		"payload and header fit":          {prefixed(meta.LengthPrefixed{Width: 2, MaxPayload: 8}), 10, false},
		"the header is too much":          {prefixed(meta.LengthPrefixed{Width: 2, MaxPayload: 9}), 10, true},
		"no payload fits":                 {prefixed(meta.LengthPrefixed{HeaderSize: 11, Width: 2}), 10, true},
		"the payload is MaxFrame's":       {prefixed(meta.LengthPrefixed{Width: 8}), 10, false},
		"a payload of all there can be":   {prefixed(meta.LengthPrefixed{Width: 8, MaxPayload: math.MaxInt}), 10, true},
		"lines have no size of their own": {bufio.ScanLines, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", Split: test.split, MaxFrame: test.maxFrame})
			if test.refused {
				assert.ErrorIs(t, err, meta.ErrOption)
				assert.ErrorContains(t, err, "MaxFrame: is")
				return
			}
			require.NoError(t, err)
			server.Terminate(nil)
		})
	}
}

// What makes no sense is refused by name, and all of it at once.
func TestServerOptions(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	certs := modes()[2].manager
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for names, options := range map[string]meta.TCPServerOptions{
		"MaxConnections":                    {MaxConnections: -1},
		"MaxConnectionsPerAddress":          {MaxConnectionsPerAddress: -1},
		"MaxHandshakes:":                    {MaxHandshakes: -1, CertManager: certs},
		"MaxHandshakeFailures:":             {MaxHandshakeFailures: -1, CertManager: certs},
		"MaxHandshakes: there":              {MaxHandshakes: 1},
		"MaxHandshakeFailures: there":       {MaxHandshakeFailures: 1},
		"Listener":                          {Listener: listener, Host: "localhost"},
		"Listener:":                         {Listener: listener, Port: 1},
		"leave Host, Port, UnixPath":        {Listener: listener, UnixPath: "x"},
		"and ReusePort":                     {Listener: listener, ReusePort: true},
		"UnixPath":                          {UnixPath: "x", Port: 1},
		"UnixMode: has":                     {UnixMode: 0o600},
		"UnixOwner: has":                    {UnixOwner: "0"},
		`there is no user "nobody.at.all"`:  {UnixPath: "x", UnixOwner: "nobody.at.all:0"},
		`there is no user "-1"`:             {UnixPath: "x", UnixOwner: "-1"},
		`there is no group "nobody.at.all"`: {UnixPath: "x", UnixOwner: ":nobody.at.all"},
		"UnixMode: is":                      {UnixPath: "x", UnixMode: os.ModeSetuid | 0o600},
		"UnixPath:":                         {UnixPath: "x", Host: "localhost"},
		"Port or ReusePort":                 {UnixPath: "x", ReusePort: true},
		"ProxyFrom: peers":                  {UnixPath: "x", ProxyFrom: trusted},
		"ProxyFrom: peers of":               {Listener: unixListener(t), ProxyFrom: trusted},
		"MaxConnectionsPerAddress, ":        {UnixPath: "x", MaxConnectionsPerAddress: 1},
		"MaxConnectionsPerAddress, M":       {Listener: unixListener(t), MaxHandshakeFailures: 1, CertManager: certs},
		"HandshakeTimeout: there":           {HandshakeTimeout: time.Second},
		"ConnectionMeta.MailboxSize":        {ConnectionMeta: gen.MetaOptions{MailboxSize: -1}},
		"ProcessPool[1]":                    {ProcessPool: []gen.Atom{"a", ""}},
		"ProxyFrom[0]":                      {ProxyFrom: []netip.Prefix{{}}},
		"BufferSize":                        {BufferSize: -1},
		"MaxFrame":                          {MaxFrame: -1, Split: bufio.ScanLines},
		"MaxFrame:":                         {MaxFrame: 1},
		"BufferSize:":                       {BufferSize: 1, Split: bufio.ScanLines},
		"BufferPool":                        {BufferPool: new(sync.Pool), Split: bufio.ScanLines},
		"Active":                            {Active: -1},
		"WriteBuffer":                       {WriteBuffer: -1},
		"HandshakeTimeout":                  {HandshakeTimeout: -1},
		"WriteTimeout":                      {WriteTimeout: -1},
		"IdleTimeout":                       {IdleTimeout: -time.Second},
		"CloseTimeout":                      {CloseTimeout: -1},
		"KeepAliveCount: is -1":             {KeepAliveCount: -1},
		"KeepAliveCount: is 128":            {KeepAliveCount: 128},
		"UserTimeout":                       {UserTimeout: -1},
		"UserTimeout: is 600h":              {UserTimeout: 25 * 24 * time.Hour},
		"InsecureSkipVerify":                {InsecureSkipVerify: true},
		"StartTLS":                          {StartTLS: true, Active: 1},
		"NextProtos:":                       {NextProtos: []string{"h2"}},
		"NextProtos[1]":                     {NextProtos: []string{"h2", ""}, CertManager: certs},
		"StartTLS: set Active":              {StartTLS: true, CertManager: certs},
		"IdleTimeout: is 30ns":              {IdleTimeout: 30},
		"KeepAlivePeriod: is 15ns":          {KeepAlivePeriod: 15},
		"MaxLifetime: is 3.6µs":             {MaxLifetime: 3600},
		"Listener: is a nil *net.TCP":       {Listener: (*net.TCPListener)(nil)},
		"Listener: is a nil *net.Uni":       {Listener: (*net.UnixListener)(nil), CertManager: certs},
		"Node: is a nil":                    {Node: (*nilNode)(nil)},
	} {
		server, err := meta.CreateTCPServer(options)
		assert.Nil(t, server)
		assert.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, names)
	}
	_, err = meta.CreateTCPServer(meta.TCPServerOptions{MaxConnections: -1, IdleTimeout: -1, InsecureSkipVerify: true})
	for _, name := range []string{"MaxConnections", "IdleTimeout", "InsecureSkipVerify"} {
		assert.ErrorContains(t, err, name)
	}
}

type nilNode struct{ gen.Node }

func unixListener(t *testing.T) net.Listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "unix") // t.TempDir can be too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", dir+"/socket")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	return listener
}

func TestConnectionOptions(t *testing.T) {
	certs := modes()[2].manager
	for names, options := range map[string]meta.TCPConnectionOptions{
		"Port":                 {},
		"DialTimeout":          {Port: 1, DialTimeout: -1},
		"DialTimeout: is 5ns":  {Port: 1, DialTimeout: 5},
		"MinInterval: is 5ns":  {Port: 1, Reconnect: &meta.Reconnect{MinInterval: 5}},
		"Proxy.Source: is a":   {Port: 1, Proxy: &meta.ProxyHeader{Source: (*net.TCPAddr)(nil), Destination: (*net.TCPAddr)(nil)}},
		"UnixPath":             {Port: 1, UnixPath: "x"},
		"UnixPath:":            {Host: "x", UnixPath: "x"},
		"ServerName":           {Port: 1, ServerName: "x"},
		"InsecureSkipVerify":   {Port: 1, InsecureSkipVerify: true},
		"StartTLS: set CertMa": {Port: 1, StartTLS: true, Active: 1},
		"StartTLS: set Active": {Port: 1, StartTLS: true, CertManager: certs},
		"NextProtos: have":     {Port: 1, NextProtos: []string{"h2"}},
		"NextProtos[0]":        {Port: 1, NextProtos: []string{""}, CertManager: certs},
		"HandshakeTimeout:":    {Port: 1, HandshakeTimeout: time.Second},
		"HandshakeTimeout: is": {Port: 1, HandshakeTimeout: -1, CertManager: certs},
		"MaxFrame":             {Port: 1, MaxFrame: 1},
		"MaxFrame: is":         {Port: 1, MaxFrame: -1, Split: bufio.ScanLines},
		"BufferSize":           {Port: 1, BufferSize: 1, Split: bufio.ScanLines},
		"BufferPool: has":      {Port: 1, BufferPool: &sync.Pool{New: func() any { return new([]byte) }}},
		"BufferSize: is":       {Port: 1, BufferSize: -1, BufferPool: new(sync.Pool)},
		"BufferPool":           {Port: 1, BufferPool: new(sync.Pool), Split: bufio.ScanLines},
		"Active: is":           {Port: 1, Active: -1},
		"WriteBuffer: is":      {Port: 1, WriteBuffer: -1},
		"WriteTimeout: is":     {Port: 1, WriteTimeout: -1},
		"IdleTimeout: is":      {Port: 1, IdleTimeout: -1},
		"CloseTimeout: is":     {Port: 1, CloseTimeout: -1},
	} {
		connection, err := meta.CreateTCPConnection(options)
		assert.Nil(t, connection)
		assert.ErrorIs(t, err, meta.ErrOption)
		assert.ErrorContains(t, err, names)
	}
}

func TestCannotDialOrListen(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := portOf(t, listener.Addr().String())
	_, err = meta.CreateTCPServer(meta.TCPServerOptions{Host: "127.0.0.1", Port: port})
	assert.ErrorIs(t, err, meta.ErrListen)
	assert.ErrorContains(t, err, listener.Addr().String())
	assert.ErrorContains(t, err, "choose another")
	listener.Close()
	_, err = meta.CreateTCPConnection(meta.TCPConnectionOptions{Host: "127.0.0.1", Port: needs.Port(t)})
	assert.ErrorIs(t, err, meta.ErrDial)
	assert.ErrorContains(t, err, "connection refused")
}

// Inspect answers at any time, also of a connection whose peer neither reads nor completes its
// handshake.
func TestInspectNeverBlocks(t *testing.T) {
	eachMode(t, func(t *testing.T, m mode) {
		a := newHost(t).spawn(nil)
		options := meta.TCPServerOptions{CertManager: m.manager, WriteBuffer: 1 << 20, CloseTimeout: 50 * time.Millisecond}
		if m.tls() {
			options.HandshakeTimeout = time.Minute
		}
		server, addr := a.listen(options)
		m.dial(t, addr)
		id := expect[meta.MessageTCPConnect](a).ID
		if m.tls() {
			dialTCP(t, addr) // mute
			eventually(t, func() bool { return a.inspect(server)["connections establishing"] == "1" }, "it waits for its handshake")
		}
		a.send(id, meta.MessageTCP{Data: make([]byte, 32<<20)})
		a.send(id, meta.MessageTCP{Data: make([]byte, 1)}) // the message goroutine now waits for room
		eventually(t, func() bool { return len(a.inspect(server, id.String())["bytes waiting"]) > len("999999") }, "it waits for the peer")
		connection, listening := a.inspect(server, id.String()), a.inspect(server)
		assert.Contains(t, a.inspect(server, "unknown")["error"], "unknown")
		for _, key := range []string{
			"local", "remote", "process", "age", "state", "tls", "messages allowed", "bytes in", "bytes out", "messages in", "messages out",
			"bytes waiting", "back-pressure", "write buffer", "active", "buffer size", "handshake timeout", "write timeout", "close timeout",
			"idle timeout",
		} {
			assert.NotEmpty(t, connection[key], key)
		}
		for _, key := range []string{
			"listen", "tls", "pool", "connections", "connections establishing", "connections total", "max connections", "max connections per address",
			"max handshake failures", "refused", "handshake failures", "over limit", "accept errors", "bytes in", "bytes out", "messages in",
			"messages out", "back-pressure", "write buffer", "active", "buffer size", "handshake timeout", "write timeout", "close timeout", "idle timeout",
		} {
			assert.NotEmpty(t, listening[key], key)
		}
		assert.Equal(t, addr, listening["listen"])
		assert.Equal(t, "1", listening["connections"])
		a.send(server, meta.MessageTCPDrain{})
		expect[meta.MessageTCPDraining](a)
		assert.ErrorIs(t, expect[meta.MessageTCPDisconnect](a).Reason, meta.ErrDrained)
	})
}
