package acme

import (
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"time"
)

// In the functions of this file chance is a number in [0, 1): machines that were started
// together shall not come to the CA together.

func chance() float64 { return rand.Float64() }

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
	earliest := leaf.NotBefore.Add(min(lifetime(leaf)/10, maxSuggestedWait))
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
	// firstRetry is the wait after a first failure of the CA or the network, firstRetryInvalid after
	// one of a validation, or of an order whose answer was lost. Let's Encrypt allows five failed
	// validations of a name in an hour, and 300 orders of an account in three hours
	// (https://letsencrypt.org/docs/rate-limits/).
	firstRetry        = time.Second
	firstRetryInvalid = 30 * time.Second

	// maxRetry bounds these waits, maxRetryMissing those for a CA or a network that is down while
	// nothing is in service.
	maxRetry        = 6 * time.Hour
	maxRetryMissing = time.Hour

	// unusableRetry is the least wait after a certificate that cannot be used: there will be
	// another like it, and each is an order.
	unusableRetry = time.Hour

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
		most = maxRetryMissing
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

func lifetime(leaf *x509.Certificate) time.Duration { return leaf.NotAfter.Sub(leaf.NotBefore) }

// endOfService is a moment before the end of a certificate, so that on a busy machine too
// it is out of service then.
func endOfService(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-min(lifetime(leaf)/20, time.Second))
}

// refreshInterval is how often the cache is looked at for a newer certificate, or tried again for
// one that could not be stored.
func refreshInterval(cert *tls.Certificate) time.Duration {
	if cert == nil {
		return time.Second
	}
	return max(min(lifetime(cert.Leaf)/30, time.Minute), time.Second)
}
