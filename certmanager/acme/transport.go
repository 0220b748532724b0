package acme

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/internal/clock"
)

// maxAnswer is the size limit of a CA's response, in bytes.
const maxAnswer = 1 << 20

// transport is the http.RoundTripper of acmez. It returns a directory read earlier, since acmez
// reads it under a lock that all CAs of a process share. It limits the size of responses, and
// stores a failure for call.
type transport struct {
	*http.Transport
	directory []byte // served for a URL with a fragment, see newClient
}

// exchange is the state of the requests of a call. Only the goroutine of the call uses it.
type exchange struct {
	posted  bool     // the last request was a POST
	refused *refusal // the failure of the last request, if it failed
}

type (
	exchangeKey struct{}
	pollKey     struct{} // a *time.Duration, the Retry-After of the last response
)

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if t.directory != nil && request.URL.Fragment != "" {
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(t.directory)),
		}, nil
	}
	x := request.Context().Value(exchangeKey{}).(*exchange)
	if x.refused != nil && !isProblem(x.refused, acme.ProblemTypeBadNonce) {
		return nil, errRepeated
	}
	response, err := t.Transport.RoundTrip(request)
	x.posted = request.Method == http.MethodPost
	last, polling := request.Context().Value(pollKey{}).(*time.Duration)
	if !polling {
		last = new(time.Duration)
	}
	*last = 0
	if err != nil {
		var network *net.OpError
		dialing := errors.As(err, &network) && network.Op == "dial"
		x.refused = &refusal{err: fmt.Errorf("%s: %w", request.URL.Host, err), lost: x.posted && !dialing}
		return nil, x.refused
	}
	*last = retryAfter(response.Header, clock.Now())
	response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	// Otherwise alternative chains would be downloaded too, and a broken one would delay the first.
	response.Header.Del("Link")
	if x.refused = nil; response.StatusCode < http.StatusBadRequest {
		return response, nil
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	p := problemOf(response, body)
	unknown := p.Type == "" && p.Status >= http.StatusInternalServerError && p.Status != http.StatusServiceUnavailable
	x.refused = &refusal{err: p, after: *last, lost: x.posted && unknown}
	return response, nil
}

// errRepeated is the error of a request that acmez repeats at once, even a new order whose response
// was lost. It is not the CA's error, for which acmez looks at a response that there is not.
var errRepeated = errors.New("refused")

// call makes requests through acmez, without its retries except after a bad nonce. Its error names
// the operation and the CA's error, without acmez's URLs and attempts, and when the CA wants to be
// asked again.
func call[T any](ctx context.Context, doing string, do func(context.Context) (T, error)) (T, error) {
	x := new(exchange)
	got, err := do(context.WithValue(ctx, exchangeKey{}, x))
	switch {
	case err == nil:
		return got, nil
	case x.refused != nil:
		err = x.refused
	default:
		err = &refusal{err: err, lost: x.posted} // the answer cannot be used
	}
	return got, fmt.Errorf("%s: %w", doing, err)
}

// request calls a method of acmez that takes the account and one value.
func request[X, Y any](ctx context.Context, c *client, doing string, method func(context.Context, acme.Account, X) (Y, error), x X) (Y, error) {
	return call(ctx, doing, func(ctx context.Context) (Y, error) { return method(ctx, c.account, x) })
}

// refusal is a failed request: with an error of the CA or the network, or an unusable response.
type refusal struct {
	err   error
	after time.Duration // when the CA wants to be asked again
	lost  bool          // the CA may have executed the request
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

// describe returns the text of a problem without its empty parts.
func describe(p acme.Problem) string {
	text := strings.TrimSpace(fmt.Sprintf("%d %s", p.Status, http.StatusText(p.Status)))
	if kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace); kind != "" {
		text += " " + kind
	}
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	if p.Instance != "" { // what the account's owner must do, for example agree to new terms
		text += "; see " + p.Instance
	}
	if len(text) > maxProblem {
		text = strings.ToValidUTF8(text[:maxProblem], "") + "…"
	}
	return text
}

// maxProblem is the length of a problem's text in errors, in bytes. The response may have
// maxAnswer.
const maxProblem = 2000

// retryAfter parses a Retry-After header (RFC 9110 section 10.2.3): seconds or a date.
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
	var all *orderError
	var one *refusal
	switch {
	case errors.As(err, &all):
		return all.after
	case errors.As(err, &one):
		return one.after
	}
	return 0
}
