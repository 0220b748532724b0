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

// refusals are the reasons for which a connection is refused before an actor gets it. The first one
// that matches an error counts.
var refusals = [...]struct {
	why       string
	handshake bool // counts as a failed handshake
	is        func(error) bool
}{
	{"panic", false, isA[*panicError]},
	{"terminated", false, is(ErrDrained, ErrTerminated)},
	{refusedNothing, false, is(errNothingSent)},
	{refusedLimit, false, is(errOverLimit)},
	{"PROXY header", false, is(errNoProxy, errSpoofedProxy)},
	{"owner gone", false, is(ErrOwnerGone)},
	{"timeout", true, func(err error) bool { return timeout(err) || errors.Is(err, context.DeadlineExceeded) }},
	{"not TLS", true, isA[tls.RecordHeaderError]},
	{"server name", true, is(sni.ErrName)},
	{"certificate", true, func(err error) bool {
		return isA[*tls.CertificateVerificationError](err) || conninfo.NoCertificate(err)
	}},
	{"refused by peer", true, isAlert},
	{"peer gone", true, left},
	{"protocol", true, func(err error) bool {
		return strings.HasPrefix(err.Error(), "tls: ") || strings.HasPrefix(err.Error(), "local error: tls: ")
	}},
	{"not authorized", true, func(error) bool { return true }}, // an error of VerifyConnection or another callback of the manager
}

const (
	refusedNothing = "nothing sent"
	refusedLimit   = "limit"
)

// RefusedReasons are the keys that ServerStats.Refused may have.
var RefusedReasons = func() (all [len(refusals)]string) {
	for i, refusal := range refusals {
		all[i] = refusal.why
	}
	return all
}()

// whyRefused classifies an error of admission or handshake. It returns an index of refusals.
func whyRefused(err error) (why int) {
	for !refusals[why].is(err) {
		why++
	}
	return why
}

// left reports whether the peer, its kernel or the network has ended the connection.
var left = is(io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT)

// refused counts a connection that no actor got, and logs it at a limited rate.
func (s *tcpServer) refused(c *tcpConnection, stage string, err error) {
	why := whyRefused(err)
	nothing := refusals[why].why == refusedNothing
	source := limitAddr(c.sock.RemoteAddr())
	s.mu.Lock()
	s.stats.Refused[refusals[why].why]++
	c.summed = true
	if refusals[why].handshake {
		s.addresses.failed(source)
	}
	logs := !nothing && s.addresses.mayLog(source, why)
	s.mu.Unlock()
	if nothing {
		s.process.Log().Debug("%s of %s: %s", stage, c.sock.RemoteAddr(), err)
	}
	if !logs {
		return
	}
	log := s.process.Log()
	if c.process != nil { // it was spawned
		log = c.log()
		log.AddFields(gen.LogField{Name: "refused", Value: refusals[why].why})
		if c.shown != nil {
			c.logPeer(c.shown)
		}
	}
	log.Warning("%s of %s refused: %s", stage, c.sock.RemoteAddr(), dn.Printable(err.Error()))
}
