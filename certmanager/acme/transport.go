package acme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/internal/clock"
)

// maxAnswer bounds what is read of an answer of a CA.
const maxAnswer = 1 << 20

// transport is between acmez and the network. It gives acmez a directory that was read before,
// since acmez reads it under a lock that all CAs of a process share. It keeps an error with its
// Retry-After, which acmez does not hand on, and bounds what is read.
type transport struct {
	http.RoundTripper
	directory string // its URL
	body      []byte // its contents
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	to := *request.URL
	to.Fragment = ""
	if request.Method == http.MethodGet && to.String() == t.directory {
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: request,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: io.NopCloser(bytes.NewReader(t.body)), ContentLength: int64(len(t.body)),
		}, nil
	}
	last := refusalOf(request.Context())
	if r := last.Load(); r != nil && !isProblem(r, acme.ProblemTypeBadNonce) {
		return nil, r // acmez would repeat it at once, also a new order whose answer was lost
	}
	response, err := t.RoundTripper.RoundTrip(request)
	if err != nil {
		err = fmt.Errorf("%s: %w", request.URL.Host, err)
		if request.Method == http.MethodPost {
			last.Store(&refusal{err: err})
		}
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	// Alternative chains would be downloaded too, and a broken one would hold the first up.
	response.Header.Del("Link")
	if response.StatusCode < http.StatusBadRequest {
		return response, nil
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	last.Store(&refusal{problemOf(response, body), retryAfter(response.Header, clock.Now())})
	return response, nil
}

// refusal is a request that failed: with an error of the CA, or of the network. It has the time
// after which the CA wants to be asked again if it said so.
type refusal struct {
	err   error
	after time.Duration
}

func (r *refusal) Error() string {
	text := r.err.Error()
	if p := (acme.Problem{}); errors.As(r.err, &p) {
		text = describe(p)
	}
	if r.after == 0 {
		return text
	}
	return fmt.Sprintf("%s (Retry-After: %v)", text, r.after)
}

func (r *refusal) Unwrap() error { return r.err }

func problemOf(response *http.Response, body []byte) acme.Problem {
	var problem acme.Problem
	if json.Unmarshal(body, &problem) != nil {
		problem.Detail = strings.TrimSpace(string(body[:min(len(body), 200)]))
	}
	problem.Status = response.StatusCode
	return problem
}

// describe is acmez's text without what is empty.
func describe(p acme.Problem) string {
	text := strings.TrimSpace(fmt.Sprintf("%d %s", p.Status, http.StatusText(p.Status)))
	if kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace); kind != "" {
		text += " " + kind
	}
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	if p.Instance != "" { // what the account's owner has to do, for example agree to other terms
		text += "; see " + p.Instance
	}
	for _, sub := range p.Subproblems {
		text += fmt.Sprintf("; %s: %s", strings.TrimSpace(sub.Identifier.Value+" "+strings.TrimPrefix(sub.Type, acme.ProblemTypeNamespace)), sub.Detail)
	}
	return text
}

// retryAfter reads a Retry-After, RFC 9110 section 10.2.3: seconds or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if when, err := http.ParseTime(value); err == nil {
		return max(0, when.Sub(now))
	}
	return 0
}

func retryAfterOf(err error) time.Duration {
	var r *refusal
	if errors.As(err, &r) {
		return r.after
	}
	return 0
}

// refusalKey is of the last refusal of the requests of a call, in their context.
type refusalKey struct{}

func refusalOf(ctx context.Context) *atomic.Pointer[refusal] {
	if last, ok := ctx.Value(refusalKey{}).(*atomic.Pointer[refusal]); ok {
		return last
	}
	return new(atomic.Pointer[refusal])
}

// plain makes an error of acmez one that says what was being done and what the CA said, without its
// URLs and attempts.
func plain(doing string, err error) error {
	var r *refusal
	var p acme.Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &r):
		err = r
	case errors.As(err, &p):
		err = &refusal{err: p}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// call makes requests of acmez, none again after an error but a bad nonce. Its error says what the
// CA wants if it wants to be asked later.
func call[T any](ctx context.Context, doing string, do func(context.Context) (T, error)) (T, error) {
	last := new(atomic.Pointer[refusal])
	got, err := do(context.WithValue(ctx, refusalKey{}, last))
	if r, p := last.Load(), (acme.Problem{}); err != nil && r != nil && (r.after > 0 || !errors.As(err, &p)) {
		err = r
	}
	return got, plain(doing, err)
}
