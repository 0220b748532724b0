package meta

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"syscall"

	"ergo.services/ergo/gen"

	"github.com/ergotls/ergotls/internal/conninfo"
	"github.com/ergotls/ergotls/internal/dn"
	"github.com/ergotls/ergotls/internal/sni"
)

// Why a connection was refused before an actor heard of it.
const (
	refusedLimit       = "limit"
	refusedProxy       = "PROXY header"
	refusedNobody      = "owner gone"
	refusedTimeout     = "timeout"
	refusedNotTLS      = "not TLS"
	refusedName        = "server name"
	refusedCertificate = "certificate"
	refusedByPeer      = "refused by peer"
	refusedGone        = "peer gone"
	refusedRule        = "not authorized"
	refusedProtocol    = "protocol"
	refusedNothing     = "nothing sent"
	refusedPanic       = "panic"
)

// RefusedReasons are the keys that ServerStats.Refused may have.
var RefusedReasons = [...]string{
	refusedLimit, refusedProxy, refusedNobody, refusedTimeout, refusedNotTLS, refusedName, refusedCertificate, refusedByPeer, refusedGone,
	refusedRule, refusedProtocol, refusedNothing, refusedPanic,
}

// left says that the peer has ended the connection, or its kernel or the network has.
func left(err error) bool {
	for _, one := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// whyRefused sorts the errors of admission and handshake.
func whyRefused(err error) string {
	_, noRecord := errors.AsType[tls.RecordHeaderError](err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, panicked := errors.AsType[*panicError](err)
	switch {
	case panicked:
		return refusedPanic
	case errors.Is(err, errNothingSent):
		return refusedNothing
	case errors.Is(err, errOverLimit):
		return refusedLimit
	case errors.Is(err, errNoProxy), errors.Is(err, errSpoofedProxy):
		return refusedProxy
	case errors.Is(err, ErrOwnerGone):
		return refusedNobody
	case timeout(err), errors.Is(err, context.DeadlineExceeded):
		return refusedTimeout
	case noRecord:
		return refusedNotTLS
	case errors.Is(err, sni.ErrName):
		return refusedName
	case unverified, conninfo.NoCertificate(err):
		return refusedCertificate
	case isAlert(err):
		return refusedByPeer
	case left(err):
		return refusedGone
	case strings.HasPrefix(err.Error(), "tls: "), strings.HasPrefix(err.Error(), "local error: tls: "):
		return refusedProtocol
	default:
		return refusedRule // what VerifyConnection or the manager's other callbacks say
	}
}

// isFailure says that what was refused was a handshake.
func isFailure(why string) bool {
	switch why {
	case refusedLimit, refusedProxy, refusedNobody, refusedNothing, refusedPanic:
		return false
	}
	return true
}

// refused counts a connection that no actor has heard of, and says so now and then.
func (s *tcpServer) refused(c *tcpConnection, stage string, err error) {
	why, total := whyRefused(err), uint64(0)
	s.count(func(stats *serverStats) {
		stats.refused[why]++
		for _, n := range stats.refused {
			total += n
		}
	})
	if why == refusedNothing {
		s.process.Log().Debug("%s of %s: %s", stage, c.sock.RemoteAddr(), err)
		return
	}
	source := limitAddr(c.sock.RemoteAddr())
	if isFailure(why) {
		s.addresses.failed(source)
	}
	if s.addresses.mayLog(source, why) {
		log := s.process.Log()
		if c.process != nil { // it was spawned
			log = c.log()
			log.AddFields(gen.LogField{Name: "refused", Value: why})
			if c.shown != nil {
				c.logPeer(c.shown)
			}
		}
		log.Warning("%s of %s refused: %s (%d refused so far)", stage, c.sock.RemoteAddr(), dn.Printable(err.Error()), total)
	}
}
