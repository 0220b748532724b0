package meta

import (
	"crypto/tls"
	"net"
	"time"

	"ergo.services/ergo/gen"
)

// MessageTCPConnect is sent when a connection is established and, over TLS, the
// handshake is complete and the peer is authorized. It is the first message of
// a connection to its owner: see MessageTCPOwner.
type MessageTCPConnect struct {
	// ID is the connection: send MessageTCP and the other messages of this package to it.
	ID gen.Alias
	// RemoteAddr is the peer's address; behind a trusted PROXY header, the address in it. LocalAddr
	// is the address of this side.
	RemoteAddr net.Addr
	LocalAddr  net.Addr
	// TLS is a copy of the connection's TLS state, nil without TLS.
	TLS *tls.ConnectionState
	// Peer identifies the peer.
	Peer Peer
}

// MessageTCP carries bytes in both directions. From a connection, Data is the received bytes, or
// one frame if Split is set; the receiver owns it. To a connection, Data is what to write, in order
// of sending; it must not be modified after sending.
type MessageTCP struct {
	// ID is the connection that the bytes came from. It is ignored on sending.
	ID   gen.Alias
	Data []byte
	// Recycle, set on sending, gives up the memory of Data: after the write, connections may read into
	// it, or it returns to BufferPool if that is set. Set Recycle only if Data is sent to one
	// connection and not used afterwards. It saves garbage collection when large messages are echoed,
	// and changes nothing else.
	Recycle bool
}

// MessageTCPDisconnect is the last message of a connection: exactly one follows each
// MessageTCPConnect. An outgoing connection also sends it after a failed handshake, without a
// MessageTCPConnect. If the mailbox of its receiver is full, the connection waits for room. After
// the peer has closed its writing half ([ErrClosedByPeer]), answers that are sent soon are still
// written: see HalfClose. If the parent ends, its connections send no MessageTCPDisconnect: workers
// should link to the parent or monitor it.
type MessageTCPDisconnect struct {
	// ID is the connection, which takes no more messages.
	ID gen.Alias
	// Reason is a *DisconnectError; never nil.
	Reason error
	// Retry is the time at which a connection with the option Reconnect connects again, with the same
	// ID. Zero means never.
	Retry time.Time
}

// MessageTCPEOF reports that the peer has closed its writing half, if the option HalfClose is set.
// The connection can still be written to; send a [MessageTCPClose] to end it.
type MessageTCPEOF struct {
	// ID is the connection.
	ID gen.Alias
}

// MessageTCPUnsent returns a [MessageTCP] to its sender: a connection with the option Reconnect did
// not write it, because it was not connected and does not keep messages, or because it ended first.
type MessageTCPUnsent struct {
	// ID is the connection. Written is how many bytes of Data were passed to the kernel before the
	// connection ended: 0, unless it ended while Data was being written.
	ID      gen.Alias
	Data    []byte
	Written int
}

// MessageTCPActive, sent to a connection whose option Active is set, allows it N
// further messages. N below 1 is ignored with a warning.
type MessageTCPActive struct {
	// N is added to the messages that are still allowed.
	N int
}

// MessageTCPPassive reports that the connection has delivered all allowed messages and does not
// read until it gets a [MessageTCPActive].
type MessageTCPPassive struct {
	// ID is the connection: send the MessageTCPActive to it.
	ID gen.Alias
}

// MessageTCPClose, sent to a connection, ends it with the reason [ErrTerminated] after the messages
// before it were written. It is handled in mailbox order. If the peer takes no data meanwhile, the
// connection ends after WriteTimeout with [ErrSlowConsumer]; a peer that takes a little now and
// then can delay the close. Once the message is handled, CloseTimeout limits the rest. An exit
// (SendExitMeta) does not wait for the mailbox, only for the running handler, and writes what was
// accepted.
type MessageTCPClose struct{}

// MessageTCPCloseWrite, sent to a connection, writes the data accepted before it, then close_notify
// (TLS) and FIN, and keeps reading. Later writes are dropped with a log line.
type MessageTCPCloseWrite struct{}

// MessageTCPOwner, sent to a connection, makes another process its owner. The previous owner gets
// this message, with ID, as its last one, if its mailbox has room. The new owner gets a
// [MessageTCPConnect], as if the connection were new, and then everything that comes later, in
// order, including the MessageTCPDisconnect. To change the owner between two messages, set the
// option Active, send this message after a MessageTCPPassive, and let the new owner send the
// MessageTCPActive.
//
// With the option Node the connection ends with the new owner. The message is ignored with a
// warning if it is not from the owner or the parent of the connection (an owner that the connection
// knows only by a name, without Node, is not checked), if there is no such process, as far as Node
// knows, and for a connection of an ActorServer, which belongs to its actor.
type MessageTCPOwner struct {
	// PID is the new owner. ID is the connection; it is ignored on sending.
	PID gen.PID
	ID  gen.Alias
}

// MessageTCPStartTLS, sent to a connection with the option StartTLS, upgrades it to TLS. The
// connection stops reading, writes the accepted data and Reply, and performs the handshake. Bytes
// that the peer sent before Reply was written end the connection with [ErrStartTLS]: an attacker on
// the path may have inserted them (CVE-2011-0411). Nothing is written without TLS afterwards. A
// [MessageTCPSecured] reports success.
type MessageTCPStartTLS struct {
	// Reply has the last bytes that are written without TLS ("220 ready to start TLS"). Do not send
	// it in an earlier MessageTCP, because the peer may start its handshake as soon as it has read
	// it. Clients leave it nil.
	Reply []byte
}

// MessageTCPSecured reports that the upgrade of [MessageTCPStartTLS] is complete. Data after it
// came over TLS.
type MessageTCPSecured struct {
	// ID is the connection. TLS and Peer are as in MessageTCPConnect, after the handshake.
	ID   gen.Alias
	TLS  *tls.ConnectionState
	Peer Peer
}

// MessageTCPDrain, sent to a server, makes it stop accepting, sends a [MessageTCPDraining] to the
// owner of each connection, and ends the remaining connections after Timeout with the reason
// [ErrDrained]. As a Call it returns when no connection is left; the result is the number of
// connections that ended at the deadline, an int. An owner of connections that makes this Call
// can't handle its MessageTCPDraining meanwhile.
type MessageTCPDrain struct {
	// Timeout is how long connections may continue. Zero ends them at once.
	Timeout time.Duration
}

// MessageTCPDraining tells the owner of a connection that the connection ends at Deadline.
type MessageTCPDraining struct {
	// ID is the connection, Deadline when it ends with ErrDrained.
	ID       gen.Alias
	Deadline time.Time
}

// MessageTCPSuspend, sent to a server, makes it accept no further connection until a
// [MessageTCPResume]. Open connections, and those in their handshake, continue. New clients wait in
// the kernel's backlog: their connect succeeds, but they get no answer until the server resumes;
// once the backlog is full, connects time out. With ReusePort, clients that the kernel has assigned
// to this server wait too. As a Call it returns whether it changed anything (a bool), as does
// MessageTCPResume.
type MessageTCPSuspend struct{}

// MessageTCPResume, sent to a server, makes it accept connections again after a
// [MessageTCPSuspend].
type MessageTCPResume struct{}

// MessageTCPLimits, sent to a server, changes its limits. Each field is a limit of
// [TCPServerOptions]: 0 leaves it as it is, -1 means what 0 means there, which is no limit, or for
// MaxHandshakes twice GOMAXPROCS. Raising a limit accepts waiting clients at once and continues
// waiting handshakes. Lowering one closes no connection and ends no handshake: the server continues
// with the next when enough have ended.
//
// An invalid value is an error that names the field; nothing is changed then. As a Call it returns
// the previous limits as a MessageTCPLimits, or that error; as a sent message it logs the error.
type MessageTCPLimits struct {
	// As in TCPServerOptions, except for 0 and -1.
	MaxConnections           int
	MaxConnectionsPerAddress int
	MaxHandshakes            int
	MaxHandshakeFailures     int
}

// MessageTCPAlarm tells the parent of a server that the number of connections has reached the
// option AlarmHigh, or is down to AlarmLow again. The two alternate, High first.
type MessageTCPAlarm struct {
	// ID is the server, Connections the number of its connections, established or not. High means that
	// AlarmHigh is reached, false that it is down to AlarmLow.
	ID          gen.Alias
	Connections int
	High        bool
}
