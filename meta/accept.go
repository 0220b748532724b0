package meta

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// acceptClass says what an error of Accept means for the accept loop.
type acceptClass string

const (
	acceptClosed    acceptClass = "the listener is closed"
	acceptExhausted acceptClass = "out of descriptors or memory; raise the limit (ulimit -n) or lower MaxConnections"
	acceptPeer      acceptClass = "the peer was gone before it was accepted"
	acceptUnknown   acceptClass = "unexpected"
)

// classifyAccept sorts the errors of accept(2) after its manual page. Only acceptClosed ends the accept
// loop; all others are waited out, unknown ones too: a server that a passing error
// stopped for good would be down without a sign of it.
func classifyAccept(err error) acceptClass {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	switch {
	case is(net.ErrClosed):
		return acceptClosed
	case is(syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM):
		return acceptExhausted
	case is(syscall.ECONNABORTED, syscall.ECONNRESET):
		return acceptPeer
	default:
		return acceptUnknown
	}
}

// nextBackoff gives the wait after a failed accept: 5 ms, doubled up to 1 s, as net/http does.
func nextBackoff(last time.Duration) time.Duration {
	return min(max(2*last, 5*time.Millisecond), time.Second)
}
