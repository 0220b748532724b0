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

// validationError says that a CA looked at a name and did not find what it wanted.
type validationError struct {
	challenge string
	err       error
}

func (e *validationError) Error() string { return e.challenge + ": " + e.err.Error() }

func (e *validationError) Unwrap() error { return e.err }

// errOrderLost is about a new order without a usable answer.
var errOrderLost = errors.New("the CA may have made an order that is lost")

// errTooMany is about an order that would exceed the CA's limit.
var errTooMany = errors.New("the account has made as many orders as Let's Encrypt allows, and waits")

// errRecord is about a record of DNS-PERSIST-01 that is missing or wrong.
var errRecord = errors.New("nothing is ordered before there is this record")

// errUnusable is about a certificate that was issued and cannot be used.
var errUnusable = errors.New("the certificate that the CA issued cannot be used")

// isInvalid says whether a CA looked at the name and did not find what it wanted, or refused
// the order itself, or cannot give what is wanted: to ask again at once brings the same answer.
func isInvalid(err error) bool {
	var validation *validationError
	var p acme.Problem
	switch {
	case errors.As(err, &validation), errors.Is(err, errRecord), errors.Is(err, errUnusable), errors.Is(err, certmanager.ErrInvalid):
		return true
	case errors.As(err, &p):
		return p.Status >= 400 && p.Status < 500 && !isTemporary(p)
	}
	return false
}

// isTemporary says whether the same request may succeed soon: it failed in the network, or what
// answered was no ACME server, or the CA says so.
func isTemporary(err error) bool {
	var p acme.Problem
	if !errors.As(err, &p) {
		return !isInvalid(err)
	}
	switch p.Type {
	case acme.ProblemTypeBadNonce, acme.ProblemTypeOrderNotReady, acme.ProblemTypeRateLimited:
		return true
	}
	return p.Status >= 500 || p.Status == http.StatusTooManyRequests
}

// guard calls what belongs to the program that uses this package, in a goroutine: a panic is an
// error, and what does not return when ctx has ended is left behind. abandoned counts what was left
// behind and still runs.
func guard[T any](ctx context.Context, abandoned *atomic.Int32, option string, do func() (T, error)) (value T, err error) {
	if abandoned.Load() >= maxAbandoned {
		return value, fmt.Errorf("acme.Source.%s is not called: %d calls are %w", option, maxAbandoned, errAbandoned)
	}
	returned := make(chan struct{})
	var got T
	var failed error
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
	case <-returned: // it honours ctx
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

	// maxAbandoned is how many calls of one option are left behind.
	maxAbandoned = 20
)

var (
	errPanicked  = errors.New("panicked")
	errAbandoned = errors.New("still running after the end of its context")
)

func isProblem(err error, kind string) bool {
	var p acme.Problem
	return errors.As(err, &p) && p.Type == kind
}
