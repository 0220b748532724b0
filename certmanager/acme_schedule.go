package certmanager

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/crypto/acme"
)

// In the functions of this file chance is a number in [0, 1): machines that were started
// together shall not come to the CA together.

// renewalWindow is how long before its end a certificate is renewed at the latest: before,
// or a third of the lifetime if that is zero. More than half of the lifetime, as after a
// change to shorter certificates, would be an order after the other.
func renewalWindow(lifetime, before time.Duration) (window time.Duration, clamped bool) {
	if before == 0 {
		before = lifetime / 3
	}
	return min(before, lifetime/2), before > lifetime/2
}

// renewalTime is when a certificate is renewed: up to a tenth of the window before it.
func renewalTime(notAfter time.Time, window time.Duration, chance float64) time.Time {
	return notAfter.Add(-window - time.Duration(chance*float64(window/10)))
}

// suggestedTime is when a CA that was asked wants a certificate to be renewed (RFC 9773
// section 4.2): not so late that half of the window for retries is gone, and not so
// early that a CA that wants every certificate renewed at once gets one order after the other.
func suggestedTime(start, end time.Time, leaf *x509.Certificate, window time.Duration, chance float64) time.Time {
	when := start.Add(time.Duration(chance * float64(end.Sub(start))))
	latest := leaf.NotAfter.Add(-window / 2)
	earliest := leaf.NotBefore.Add(min(leaf.NotAfter.Sub(leaf.NotBefore)/10, maxSuggestedWait))
	switch {
	case when.After(latest):
		return latest
	case when.Before(earliest):
		return earliest
	}
	return when
}

// maxSuggestedWait is how old the youngest certificate is that is renewed because the CA wants
// it. CAs backdate certificates by an hour.
const maxSuggestedWait = 4 * time.Hour

const (
	// firstRetry and firstRetryInvalid are the waits after a first failure: of the CA or the
	// network, and of a validation, of which CAs allow only a few an hour.
	firstRetry        = time.Second
	firstRetryInvalid = 10 * time.Second

	// maxRetry bounds these waits, maxRetryDark those for a CA or a network that is down while
	// nothing is in service.
	maxRetry     = 6 * time.Hour
	maxRetryDark = time.Hour

	// maxRetryAfter bounds what a CA can ask for.
	maxRetryAfter = 24 * time.Hour

	// minRetry bounds the wait in the last moments of a certificate.
	minRetry = 100 * time.Millisecond
)

// retryDelay is the wait after so many failures in a row. It triples each time; while
// a certificate is in service it is at most a tenth of what remains of it, so that a
// CA that comes back in time is found back in time. What the CA asked for comes first.
func retryDelay(failures int, invalid bool, remaining, retryAfter time.Duration, chance float64) time.Duration {
	delay, most := firstRetry, maxRetry
	if invalid {
		delay = firstRetryInvalid
	} else if remaining <= 0 {
		most = maxRetryDark
	}
	for range failures - 1 {
		if delay = delay * 3; delay > most {
			break
		}
	}
	delay = min(delay, most)
	if remaining > 0 {
		delay = max(min(delay, remaining/10), minRetry)
	}
	delay += time.Duration(chance * float64(delay/5))
	return max(delay, min(retryAfter, maxRetryAfter))
}

// retryAfterOf is what the CA asked for in an answer that is an error, or zero.
func retryAfterOf(err error, now time.Time) time.Duration {
	var problem *acme.Error
	if !errors.As(err, &problem) || problem.Header == nil {
		return 0
	}
	return parseRetryAfter(problem.Header, now)
}

// parseRetryAfter reads a Retry-After, RFC 9110 section 10.2.3: seconds or a date.
func parseRetryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if when, err := http.ParseTime(value); err == nil {
		return max(0, when.Sub(now))
	}
	return 0
}

// isInvalid says whether a CA looked at the name and did not find what it wanted, or refused
// the order itself, or cannot give what is wanted: to ask again at once brings the same answer.
func isInvalid(err error) bool {
	var authorization *acme.AuthorizationError
	var order *acme.OrderError
	var problem *acme.Error
	switch {
	case errors.As(err, &authorization), errors.As(err, &order), errors.Is(err, ErrInvalid):
		return true
	case errors.As(err, &problem):
		return problem.StatusCode >= 400 && problem.StatusCode < 500 && problem.StatusCode != http.StatusTooManyRequests
	}
	return false
}

// renewalID names a certificate to a CA, RFC 9773 section 4.1; empty without an
// authority key identifier.
func renewalID(leaf *x509.Certificate) string {
	serial, err := asn1.Marshal(leaf.SerialNumber)
	if err != nil || len(leaf.AuthorityKeyId) == 0 {
		return ""
	}
	const header = 2 // tag and length; serials have 20 bytes at most
	b64 := base64.RawURLEncoding
	return b64.EncodeToString(leaf.AuthorityKeyId) + "." + b64.EncodeToString(serial[header:])
}
