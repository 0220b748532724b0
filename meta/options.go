package meta

import (
	"bufio"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"ergo.services/ergo/gen"
)

// Defaults of options.
const (
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultDialTimeout      = 10 * time.Second
	DefaultWriteTimeout     = 30 * time.Second
	DefaultCloseTimeout     = 5 * time.Second
	DefaultMinInterval      = 100 * time.Millisecond // of Reconnect
	DefaultMaxInterval      = 30 * time.Second       // of Reconnect
	DefaultWriteBuffer      = 64 << 10               // bytes
	DefaultMaxFrame         = 64 << 10               // bytes, as bufio.MaxScanTokenSize
)

// TCPServerOptions are the options of [CreateTCPServer]. The zero value listens without TLS on any
// free port of all interfaces, and the parent handles all connections. Negative numbers, except
// KeepAlivePeriod, and durations below a millisecond are errors.
type TCPServerOptions struct {
	// Host is the name or IP address to listen on; empty means all interfaces. If a name has
	// several addresses, the server listens on all that this machine has: localhost is 127.0.0.1
	// and ::1.
	Host string
	// Port to listen on; 0 takes any free one, which the log and Inspect ("listen") show.
	Port uint16
	// UnixPath, if set, is the path of a unix socket to listen on, instead of Host and Port. A
	// socket file without a listener is replaced. The file is removed when the server ends.
	UnixPath string
	// UnixMode are the permissions of that file, for example 0o660; users who may write to it may
	// connect. The file never has more permissions, not even while it is created. 0 leaves them to the
	// umask.
	UnixMode os.FileMode
	// UnixOwner changes the owner of the file as chown(1) does: "user", "user:group" or ":group", by
	// name or number. It needs the privilege for that, except for a group of this process. Unix only.
	UnixOwner string
	// Listener, if set, is used instead of Host and Port, for example an inherited socket
	// (net.FileListener). The server closes it. If its connections are TLS connections
	// (tls.NewListener), CertManager must be unset; their handshakes are performed before
	// MessageTCPConnect.
	Listener net.Listener
	// ReusePort sets SO_REUSEPORT, so that several servers, of one or several programs, can share one
	// port. Unix only.
	ReusePort bool
	// ProxyFrom lists the networks whose connections start with a PROXY protocol header, v1 or v2.
	// The address in the header becomes RemoteAddr. A client in these networks must send a header
	// within HandshakeTimeout. A header from any other client is refused; without TLS, another
	// client that sends nothing gets its MessageTCPConnect after 200 ms, and what it sends then is
	// data. A v2 header may have at most 4096 bytes of addresses and TLVs after the first 16. Empty
	// means that no client sends a header.
	ProxyFrom []netip.Prefix

	// ProcessPool names the workers; new connections go to them in turn. Unset, the parent handles
	// all. Do not name a pool actor (act.Pool): it does not keep the order of a connection's messages.
	ProcessPool []gen.Atom
	// Route, if set, chooses the worker for a peer; an empty name leaves the choice to ProcessPool. It
	// is called on the connection's goroutine, concurrently for several connections. With StartTLS it
	// is called before the upgrade and knows only the address.
	Route func(Peer) gen.Atom

	// Node, if set, is where the names of ProcessPool and Route are looked up. A connection then
	// belongs to the process that has the name when it is established, and ends with that process
	// (ErrOwnerGone, within a second if its peer is silent). Unset, its messages go to the process
	// that has the name when they are sent: a restarted worker also gets messages of connections
	// that it does not know.
	Node gen.Node

	// MaxConnections is the largest number of open connections. At the limit the server accepts no
	// more until one has ended; new clients wait in the kernel's backlog. 0 means no limit.
	MaxConnections int
	// MaxConnectionsPerAddress is the largest number of open connections from one address (IPv6: one
	// /64 network). More are closed at once. 0 means no limit.
	MaxConnectionsPerAddress int
	// MaxHandshakes is the largest number of handshakes that use the CPU at the same time. A handshake
	// that waits for its peer, for a callback of the CertManager or for a key outside the process does
	// not count. 0 means twice GOMAXPROCS.
	MaxHandshakes int
	// MaxHandshakeFailures is the number of failed handshakes from one address (IPv6: one /64
	// network) within a minute after which its connections are closed at once until the minute is
	// over. A connection that ends before a ClientHello, such as a health check, does not count as
	// failed. 0 means no limit.
	MaxHandshakeFailures int

	// AlarmHigh is the number of connections, established or not, at which the parent gets a
	// MessageTCPAlarm. The next one is sent when the number is down to AlarmLow, and then again at
	// AlarmHigh. AlarmLow 0 means nine tenths of AlarmHigh. AlarmHigh 0 means no alarms.
	AlarmHigh, AlarmLow int

	// ConnectionMeta are the meta process options of each accepted connection. Its MailboxSize limits
	// the messages that wait to be written: beyond it a sender to a slow connection gets
	// gen.ErrMetaMailboxFull.
	ConnectionMeta gen.MetaOptions

	// CertManager turns TLS on.
	CertManager gen.CertManager
	// InsecureSkipVerify requests client certificates as the manager does, but does not verify them:
	// any client is accepted. It logs a warning at start, and is an error without CertManager.
	InsecureSkipVerify bool
	// NextProtos are the server's application protocols, in order of preference (ALPN, RFC 7301). A
	// client that offers only other protocols is refused; one that offers none is accepted.
	// Peer.ALPN is the negotiated protocol.
	NextProtos []string
	// StartTLS starts in the clear and upgrades on MessageTCPStartTLS. It needs CertManager and
	// Active: 1. HandshakeTimeout limits only the upgrade; use IdleTimeout for peers that never ask
	// for one.
	StartTLS bool
	// HandshakeTimeout limits the PROXY header and the TLS handshake together. 0 means 10 s.
	HandshakeTimeout time.Duration

	// BufferSize is the largest number of bytes in one MessageTCP, unless Split is set. 0 means
	// gen.DefaultTCPBufferSize. A message takes only the memory of its data.
	BufferSize int
	// BufferPool, if set, provides the buffers for received data: []byte values of one size, made by
	// New, or of BufferSize bytes without New. A buffer that is sent with MessageTCP.Recycle returns
	// to it after the write. The receiver may put back or drop any other buffer. BufferPool can't be
	// combined with Split.
	BufferPool *sync.Pool
	// Split cuts received data into frames, one MessageTCP each. Use one of package bufio,
	// [FixedLength], [LengthPrefixed], or another function without state. Unset, a message has the
	// bytes of one read.
	Split bufio.SplitFunc
	// MaxFrame is the largest size in bytes of a frame with its header or delimiter. Split never gets
	// more. 0 means 64 KiB. FixedLength and LengthPrefixed.MaxPayload must not be larger.
	MaxFrame int
	// Active, if above 0, is the number of messages that the connection delivers before it sends a
	// MessageTCPPassive and stops reading until a MessageTCPActive allows more. 0 means no limit.
	Active int

	// WriteBuffer is the number of bytes that may wait to be written before the connection stops
	// taking messages from its mailbox. 0 means 64 KiB. Meanwhile, if Active is 0, it reads up to 16
	// times as many bytes from the peer, then stops reading until the peer has taken the waiting data.
	// Each message counts as 192 bytes plus its size, or plus the mean size of earlier answers if that
	// is larger. This limits the answers to a peer that sends and does not read; if answers can be
	// much larger than earlier ones, use Active or MailboxSize too. For a peer that sends more than
	// that before it reads, set a larger value.
	WriteBuffer int
	// WriteTimeout is how long the peer may accept no data while data waits to be written. 0 means 30
	// s.
	WriteTimeout time.Duration
	// IdleTimeout ends a connection on which nothing was read or written for this time. 0 means
	// never.
	IdleTimeout time.Duration
	// CloseTimeout limits the writing of the remaining data when a connection ends. 0 means 5 s.
	CloseTimeout time.Duration
	// HalfClose is how long the connection can still be written to after the peer has closed its
	// writing half in order (FIN; over TLS close_notify). The owner gets a MessageTCPEOF after the
	// last data, and sends a MessageTCPClose when it has answered; otherwise the connection ends after
	// HalfClose. 0 ends it at once with a MessageTCPDisconnect; but while a message has no answer yet,
	// answers that follow each other within half a second are still written, for up to CloseTimeout.
	HalfClose time.Duration
	// KeepAliveMessage, if set, is written when no other data was written for KeepAliveMessagePeriod
	// and none is waiting. Writing it does not reset IdleTimeout. A period of 0 means
	// gen.DefaultKeepAlivePeriod.
	KeepAliveMessage       []byte
	KeepAliveMessagePeriod time.Duration
	// MaxLifetime is the age at which a connection ends, shortened at random by up to a tenth, so that
	// connections opened together do not end together. Its owner gets a MessageTCPDraining, and
	// CloseTimeout later the connection ends with ErrDrained. 0 means no limit.
	MaxLifetime time.Duration
	// KeepAlivePeriod is the interval of TCP keep-alive probes. 0 means gen.DefaultKeepAlivePeriod, a
	// negative value turns them off. Linux allows at most 32,767 seconds.
	KeepAlivePeriod time.Duration
	// KeepAliveCount is the number of unanswered probes after which TCP ends the connection
	// (ErrReset). 0 means 9; Linux allows at most 127.
	KeepAliveCount int
	// UserTimeout is how long sent bytes or a keep-alive probe may stay unacknowledged, and how long
	// the peer may announce a zero window, before TCP ends the connection (ErrReset). It is the
	// TCP_USER_TIMEOUT of RFC 5482. For WriteTimeout, data counts as accepted once this machine's
	// kernel has it, which may be megabytes that the peer never reads; for UserTimeout, once the
	// peer's kernel has it. Choose a multiple of KeepAlivePeriod, or one lost probe ends the
	// connection. 0 is the system's default: about 15 minutes without an acknowledgement, no limit for
	// a zero window. Linux only.
	UserTimeout time.Duration
}

// TCPConnectionOptions are the options of [CreateTCPConnection]. Fields without a comment are as in
// [TCPServerOptions], and so are invalid numbers and durations.
type TCPConnectionOptions struct {
	// Host is the name or IP address to connect to; empty means localhost.
	Host string
	// Port to connect to, required unless UnixPath or Addrs is set.
	Port uint16
	// UnixPath, if set, is the path of a unix socket to connect to, instead of Host and Port.
	UnixPath string
	// Addrs are addresses to try in turn, "host:port" each, instead of Host and Port. Without
	// Reconnect the first that can be connected to is used, whatever its TLS handshake results in.
	Addrs []string
	// DialTimeout limits the name lookup and the TCP connect together, for each address. 0 means 10 s.
	DialTimeout time.Duration
	// Reconnect, if set, connects again when the connection has ended, under the same alias.
	// CreateTCPConnection then does not connect and does not block: the meta process connects. The
	// owner gets a MessageTCPConnect for every connection, and a MessageTCPDisconnect for every end
	// and every failed attempt; its Retry is the time of the next attempt. The last
	// MessageTCPDisconnect has no Retry: it follows MessageTCPClose, an exit, the end of the owner, or
	// MaxFailures.
	//
	// If one side does not accept the other's certificate, the next attempt is after about
	// MaxInterval; with several Addrs, once this was the result of as many attempts in a row. Data
	// that a connection has written when it ends is never written again; the rest is kept or
	// returned: see Reconnect.Keep. Reconnect can't be combined with StartTLS.
	Reconnect *Reconnect

	// Proxy, if set, is sent as a PROXY protocol header, version 2, before all other data and before
	// TLS. For a proxied client, set Source to its Peer.Addr and Destination to the LocalAddr of its
	// MessageTCPConnect. The zero value marks a connection of the proxy itself (LOCAL).
	Proxy *ProxyHeader

	// Process is the name of the process that handles the connection; empty means the parent.
	Process gen.Atom
	// Node, if set, is where the name in Process is looked up: see TCPServerOptions.
	Node gen.Node

	// CertManager turns TLS on. It provides the roots to verify the server and the client certificate.
	CertManager gen.CertManager
	// ServerName is the SNI and the name that the server's certificate must be valid for. Empty means
	// the manager's ServerName if it has one, else Host.
	ServerName string
	// InsecureSkipVerify accepts any server certificate: an attacker on the path can read everything.
	// It logs a warning, and is an error without CertManager.
	InsecureSkipVerify bool
	// NextProtos are the application protocols that the client offers, in order of preference (ALPN,
	// RFC 7301). Peer.ALPN is the negotiated protocol, empty if the server does not support ALPN. A
	// server that supports ALPN but none of them refuses the handshake.
	NextProtos []string
	// StartTLS starts in the clear and upgrades on MessageTCPStartTLS. It needs CertManager and
	// Active: 1.
	StartTLS bool
	// HandshakeTimeout limits the TLS handshake. 0 means 10 s.
	HandshakeTimeout time.Duration

	// Reading, as in TCPServerOptions. Sizes are in bytes; 0 means the default.
	BufferSize int
	BufferPool *sync.Pool
	Split      bufio.SplitFunc
	MaxFrame   int
	Active     int

	// Writing and ending, as in TCPServerOptions, with the same defaults.
	WriteBuffer            int
	WriteTimeout           time.Duration
	IdleTimeout            time.Duration
	CloseTimeout           time.Duration
	HalfClose              time.Duration
	KeepAliveMessage       []byte
	KeepAliveMessagePeriod time.Duration
	MaxLifetime            time.Duration
	KeepAlivePeriod        time.Duration
	KeepAliveCount         int
	UserTimeout            time.Duration
}

// Reconnect makes an outgoing connection connect again after it has ended or failed. The zero value
// is ready to use.
type Reconnect struct {
	// MinInterval is the interval before the first retry, MaxInterval the largest interval. The
	// interval doubles with each consecutive failure, and is shortened at random by up to half. 0
	// means 100 ms and 30 s.
	MinInterval, MaxInterval time.Duration
	// MaxFailures is the number of consecutive failures after which the connection gives up. 0 means
	// no limit.
	MaxFailures int
	// Keep keeps up to WriteBuffer bytes of messages that are sent while there is no connection, or
	// that a connection has not begun to write when it ends. The next connection writes them in order.
	// Unset, each is returned at once as a MessageTCPUnsent.
	Keep bool
}
