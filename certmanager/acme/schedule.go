package acme

import (
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"time"
)

// In this file, chance is a random number in [0, 1), so that machines that were started together do
// not order at the same time.

func chance() float64 { return rand.Float64() }

// renewalWindow returns the latest time before expiry at which a certificate is renewed: before, or
// a third of the lifetime if that is zero. It is at most half of the lifetime, so that a change to
// shorter certificates does not cause constant orders.
func renewalWindow(lifetime, before time.Duration) (window time.Duration, clamped bool) {
	if before == 0 {
		before = lifetime / 3
	}
	return min(before, lifetime/2), before > lifetime/2
}

// renewalTime returns when a certificate is renewed: up to a tenth of the window before its start.
func renewalTime(notAfter time.Time, window time.Duration, chance float64) time.Time {
	return notAfter.Add(-window - time.Duration(chance*float64(window/10)))
}

// suggestedTime returns when to renew a certificate as the CA suggests (RFC 9773 section 4.2), but
// no later than half of the window for retries, and not so early that a CA that wants every
// certificate renewed at once causes constant orders.
func suggestedTime(start, end time.Time, leaf *x509.Certificate, window time.Duration, chance float64) time.Time {
	when := start.Add(time.Duration(chance * float64(end.Sub(start))))
	latest := leaf.NotAfter.Add(-window / 2)
	earliest := leaf.NotBefore.Add(minAge(leaf))
	switch {
	case when.After(latest):
		return latest
	case when.Before(earliest):
		return earliest
	}
	return when
}

// minAge returns the age before which a certificate is not renewed, whatever the CA suggests. CAs
// backdate certificates by an hour.
func minAge(leaf *x509.Certificate) time.Duration { return min(lifetime(leaf)/10, 4*time.Hour) }

const (
	// firstRetry is the wait after a first failure of the CA or the network, firstRetryInvalid after
	// one of a validation, or of an order whose answer was lost. Let's Encrypt allows five failed
	// validations of a name in an hour, and 300 orders of an account in three hours
	// (https://letsencrypt.org/docs/rate-limits/).
	firstRetry        = time.Second
	firstRetryInvalid = 30 * time.Second

	// maxRetry limits these waits, maxRetryMissing those for a CA or network that is down while no
	// certificate is in service.
	maxRetry        = 6 * time.Hour
	maxRetryMissing = time.Hour

	// unusableRetry is the minimum wait after an unusable certificate: the next will probably be the
	// same, and each costs an order.
	unusableRetry = time.Hour

	// maxRetryAfter limits the Retry-After of a CA.
	maxRetryAfter = 24 * time.Hour

	// minRetry is the minimum wait shortly before a certificate expires.
	minRetry = 100 * time.Millisecond
)

// retryDelay returns the wait after a number of consecutive failures. It triples each time. While a
// certificate is in service, the wait is at most a tenth of its remaining lifetime, so that a CA
// that recovers in time is asked in time. A Retry-After of the CA takes precedence.
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

// endOfService is shortly before the expiry of a certificate, so that it is out of service in time
// even on a busy machine.
func endOfService(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-min(lifetime(leaf)/20, time.Second))
}

// refreshInterval returns how often the cache is checked for a newer certificate, or storing an
// unsaved one is retried.
func refreshInterval(cert *tls.Certificate) time.Duration {
	if cert == nil {
		return time.Second
	}
	return max(min(lifetime(cert.Leaf)/30, time.Minute), time.Second)
}
