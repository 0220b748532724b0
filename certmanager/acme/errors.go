package acme

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
)

// validationError means that a CA tried to validate a name and failed.
type validationError struct {
	challenge string
	err       error
}

func (e *validationError) Error() string { return e.challenge + ": " + e.err.Error() }

func (e *validationError) Unwrap() error { return e.err }

// orderError means that no CA has issued a certificate.
type orderError struct {
	error
	after time.Duration // when one of the CAs may be asked again
}

func (e *orderError) Unwrap() error { return e.error }

// errOrderLost is the error of a new order without a usable response.
var errOrderLost = errors.New("the CA may have made an order that is lost")

// errTooMany is the error of an order that would exceed the CA's limit.
var errTooMany = errors.New("the account has made as many orders as Let's Encrypt allows, and waits")

// errRecord is the error of a DNS-PERSIST-01 record that is missing or wrong.
var errRecord = errors.New("nothing is ordered until this record exists")

// errUnusable is the error of an issued certificate that cannot be used.
var errUnusable = errors.New("the certificate that the CA issued cannot be used")

// isInvalid reports whether an immediate retry is useless: a CA failed to validate the name,
// refused the order itself, or cannot issue what is wanted. Other errors are temporary: the network
// failed, the response was not from an ACME server, or the CA says so.
func isInvalid(err error) bool {
	var validation *validationError
	var p acme.Problem
	switch {
	case errors.As(err, &validation), errors.Is(err, errRecord), errors.Is(err, errUnusable), errors.Is(err, certmanager.ErrInvalid):
		return true
	case !errors.As(err, &p):
		return false
	}
	switch p.Type {
	case acme.ProblemTypeBadNonce, acme.ProblemTypeOrderNotReady, acme.ProblemTypeRateLimited:
		return false
	}
	return p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests
}

// guard calls code of the program in a goroutine. It returns a panic as an error, and abandons a
// call that does not return after ctx has ended. It makes no call if ctx has already ended.
// abandoned counts abandoned calls that still run.
func guard[T any](ctx context.Context, abandoned *atomic.Int32, option string, do func() (T, error)) (value T, err error) {
	if err := ctx.Err(); err != nil {
		return value, err
	}
	if abandoned.Load() >= maxAbandoned {
		return value, fmt.Errorf("acme.Source.%s is not called: %d calls are %w", option, maxAbandoned, errAbandoned)
	}
	returned := make(chan struct{})
	var got T
	failed := fmt.Errorf("acme.Source.%s %w", option, errExited) // unless do returns or panics
	go func() {
		defer close(returned)
		defer func() {
			if p := recover(); p != nil {
				failed = fmt.Errorf("acme.Source.%s %w: %v", option, errPanicked, p)
			}
		}()
		got, failed = do()
	}()
	select {
	case <-returned:
		return got, failed
	case <-ctx.Done():
	}
	select {
	case <-returned: // it honors ctx
		return got, failed
	case <-time.After(abandonAfter):
	}
	abandoned.Add(1)
	go func() {
		<-returned
		abandoned.Add(-1)
	}()
	return value, fmt.Errorf("acme.Source.%s: a call is %w", option, errAbandoned)
}

const (
	// abandonAfter is how long a call may take to return after its context has ended.
	abandonAfter = time.Second

	// maxAbandoned is the largest number of abandoned calls of one option.
	maxAbandoned = 20
)

var (
	errPanicked  = errors.New("panicked")
	errExited    = errors.New("ended its goroutine (runtime.Goexit) instead of returning")
	errAbandoned = errors.New("still running after the end of its context")
)

func isProblem(err error, kind string) bool {
	var p acme.Problem
	return errors.As(err, &p) && p.Type == kind
}
