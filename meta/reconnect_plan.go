package meta

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"strings"
	"time"
)

// Reconnect makes an outgoing connection connect again after it has ended or failed. The zero value
// is ready for use.
type Reconnect struct {
	// MinInterval is the interval before the first retry, MaxInterval the largest interval. The
	// interval doubles with each consecutive failure, and is shortened at random by up to a half. 0
	// means 100 ms and 30 s.
	MinInterval, MaxInterval time.Duration
	// MaxFailures is the number of consecutive failures after which it gives up. 0 means no limit.
	MaxFailures int
	// Keep keeps messages that are sent while there is no connection, or that a connection has not
	// begun to write when it ends, up to WriteBuffer bytes, and writes them in order to the next
	// connection. Unset, each is returned at once as a MessageTCPUnsent.
	Keep bool
}

// Defaults of Reconnect.
const (
	DefaultMinInterval = 100 * time.Millisecond
	DefaultMaxInterval = 30 * time.Second
)

// plan notes why a connection ended, or was not made, and returns when the next is due: zero if
// there will be none, after which no message is kept. A connection that was of use begins the count
// of failures anew.
func (r *reconnecting) plan(reason *DisconnectError, useful bool) time.Time {
	retry := r.nextTry(reason, useful)
	if retry.IsZero() {
		r.giveBack()
	} else {
		r.sendSelf()
	}
	return retry
}

func (r *reconnecting) nextTry(reason *DisconnectError, useful bool) time.Time {
	o := r.opt.Reconnect
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.last, r.retryAt = false, reason, time.Time{}
	if useful && !permanent(reason) {
		r.failures = 0
	}
	r.failures++
	switch {
	case r.ctx.Err() != nil, reason.Reason == ErrTerminated, reason.Reason == ErrOwnerGone && unreachable(reason.Cause), o.MaxFailures > 0 && r.failures > o.MaxFailures:
		r.cancel()
		return r.retryAt
	}
	wait := o.MaxInterval
	if !permanent(reason) {
		wait = min(o.MaxInterval, o.MinInterval<<min(r.failures-1, 30))
		if wait <= 0 { // shifted out
			wait = o.MaxInterval
		}
	}
	r.retryAt = time.Now().Add(wait - rand.N(wait/2+1))
	return r.retryAt
}

// permanent says that a failure does not pass by waiting: one side does not accept the other's
// certificate. A server that has none at the moment says internal_error, which does pass.
func permanent(reason *DisconnectError) bool {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](reason.Cause)
	_, wrongName := errors.AsType[x509.HostnameError](reason.Cause)
	refused := reason.Reason == ErrRefused && !strings.HasSuffix(reason.Cause.Error(), "internal error")
	return untrusted || wrongName || refused
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
