package meta

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ergotls/ergotls/internal/dn"
)

// Reasons for which a connection ends. MessageTCPDisconnect.Reason is a
// [*DisconnectError] that wraps one of them: compare with errors.Is.
var (
	// ErrClosedByPeer: the peer closed the connection in an orderly way: over TLS with close_notify
	// (RFC 8446 section 6.1), otherwise with FIN.
	ErrClosedByPeer = errors.New("closed by peer")
	// ErrTruncated: the peer's TCP stream ended without close_notify, so the last bytes may have been
	// cut off by someone on the path. It comes up to half a second later if the stream ended right
	// after one of several messages in quick succession.
	ErrTruncated = errors.New("truncated: TLS stream ended without close_notify")
	// ErrReset: the network or the peer's kernel ended the connection (RST, TCP timeout, unreachable).
	ErrReset = errors.New("connection reset")
	// ErrIdle: nothing was read or written within IdleTimeout.
	ErrIdle = errors.New("idle")
	// ErrHandshake: the TLS handshake of an outgoing connection, or of an upgrade by StartTLS, failed
	// on this side: the peer is not trusted, there are no common parameters, or HandshakeTimeout
	// passed.
	ErrHandshake = errors.New("TLS handshake failed")
	// ErrRefused: the peer sent a TLS alert. In TLS 1.3 a client gets it only after its own
	// handshake is complete.
	ErrRefused = errors.New("refused by peer")
	// ErrProtocol: the peer violated TLS after the handshake, for example with a record that fails
	// authentication.
	ErrProtocol = errors.New("TLS protocol violation")
	// ErrSlowConsumer: the peer took no data within WriteTimeout.
	ErrSlowConsumer = errors.New("slow consumer")
	// ErrFrameTooLarge: a frame exceeds MaxFrame.
	ErrFrameTooLarge = errors.New("frame too large")
	// ErrFraming: the Split function failed or made no progress.
	ErrFraming = errors.New("framing")
	// ErrOwnerGone: a message could not be delivered to the process that owns the connection.
	ErrOwnerGone = errors.New("owner gone")
	// ErrEvicted: the certificate manager ended the connection; its reason (revoked, expired, not
	// authorized) is wrapped too.
	ErrEvicted = errors.New("evicted")
	// ErrDrained: the deadline of a MessageTCPDraining passed, after a MessageTCPDrain or MaxLifetime.
	ErrDrained = errors.New("drained")
	// ErrTerminated: this side ended the connection: MessageTCPClose, an exit, or the end of the
	// parent.
	ErrTerminated = errors.New("terminated")
	// ErrStartTLS: bytes arrived before the upgrade to TLS (CVE-2011-0411), or the upgrade was not
	// possible.
	ErrStartTLS = errors.New("StartTLS")
)

// Errors of CreateTCPServer, CreateTCPConnection and other functions with options.
var (
	// ErrOption: an option is invalid, or two options contradict each other. The text names them.
	ErrOption = errors.New("meta: invalid option")
	// ErrListen: the listening socket could not be opened.
	ErrListen = errors.New("meta: cannot listen")
	// ErrDial: the peer could not be reached.
	ErrDial = errors.New("meta: cannot connect")
)

// Errors of a connection with the option Reconnect, and of [Requests].
var (
	// ErrNotConnected: a connection with the option Reconnect is not connected, so it does not write
	// the message of a Call.
	ErrNotConnected = errors.New("meta: not connected")
	// ErrNoAnswer: a request was not answered in time.
	ErrNoAnswer = errors.New("meta: the peer did not answer in time")
	// ErrDuplicate: a request with the same id still waits for its answer.
	ErrDuplicate = errors.New("meta: the id is in use by another request")
)

// DisconnectError is the reason why a connection ended, with the number of bytes accepted for
// writing and of those written.
type DisconnectError struct {
	// Reason is one of the sentinels of this package.
	Reason error
	// Cause is the underlying error, nil if there is none.
	Cause error
	// Accepted is the number of bytes taken from MessageTCP and MessageTCPStartTLS for writing;
	// Written is how many of them were passed to the kernel. Written < Accepted: the difference was
	// not sent.
	Accepted, Written uint64
}

// Error returns the reason, the cause, and how many bytes were written if not all were.
func (e *DisconnectError) Error() string {
	text := e.Reason.Error()
	if e.Cause != nil {
		text += ": " + dn.Printable(e.Cause.Error()) // it may quote names that the peer chose
	}
	if e.Written < e.Accepted {
		text += fmt.Sprintf(" (%d of %d bytes written)", e.Written, e.Accepted)
	}
	return text
}

// Unwrap returns the reason and the cause, for errors.Is and errors.As.
func (e *DisconnectError) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Cause}
}

// is returns a function that reports whether an error wraps one of the targets.
func is(targets ...error) func(error) bool {
	return func(err error) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
	}
}

// isA reports whether an error wraps one of type E.
func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
