package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/acme"
	"github.com/ergotls/ergotls/internal/clock"
	"github.com/ergotls/ergotls/tlstest"
	"github.com/ergotls/ergotls/tlstest/acmetest"
)

// front is a CA whose answers can be changed on their way to the client.
type front struct {
	*acmetest.Server
	directory string
}

// newFront starts a front of ca. edit gets each answer before the client does; an error cuts the
// connection.
func newFront(t *testing.T, ca *acmetest.Server, edit func(*http.Response) error) *front {
	t.Helper()
	target, err := url.Parse(ca.Directory())
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host // for the URLs that Pebble makes
		},
		Transport: ca.HTTPClient().Transport, ModifyResponse: edit,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewTLSServer(proxy)
	t.Cleanup(server.Close)
	return &front{ca, server.URL + target.Path}
}

// source is one of the front.
func (f *front) source(t *testing.T, domains ...string) *acme.Source {
	return &acme.Source{Domains: domains, Directory: f.directory, Roots: f.Roots(), Cache: autocert.DirCache(t.TempDir()), Listen: freeAddr(t)}
}

func isPath(r *http.Response, prefix string) bool {
	return strings.HasPrefix(r.Request.URL.Path, prefix)
}

func setBody(r *http.Response, body []byte) error {
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.Header.Del("Content-Length")
	return nil
}

func replaceBody(r *http.Response, old, by string) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	return setBody(r, bytes.ReplaceAll(body, []byte(old), []byte(by)))
}

func tryFront(t *testing.T, f *front, source *acme.Source) (*world, error) {
	t.Helper()
	w := &world{ca: f.Server, addr: source.Listen, events: &eventLog{}}
	f.TLSALPN01(source.Listen)
	m, err := certmanager.New(certmanager.Options{Source: source, Logger: slog.New(w.events)})
	if w.Manager = m; err == nil {
		t.Cleanup(func() { m.Close() })
	}
	return w, err
}

// An order that the CA may have taken, and whose answer was lost or cannot be parsed, is made again
// as late as after a validation that failed.
func TestAnswerOfAnOrderIsLost(t *testing.T) {
	t.Parallel()
	for what, edit := range map[string]func(r *http.Response) error{
		"cut":            func(r *http.Response) error { return errors.New("cut") },
		"not JSON":       func(r *http.Response) error { return setBody(r, []byte("<html>welcome</html>")) },
		"other JSON":     func(r *http.Response) error { return setBody(r, []byte(`{"identifiers": "none"}`)) },
		"another status": func(r *http.Response) error { r.StatusCode = 302; return setBody(r, nil) },
		"500":            func(r *http.Response) error { r.StatusCode = 500; return setBody(r, []byte("oops")) },
		"502": func(r *http.Response) error {
			r.StatusCode = 502
			r.Header.Set("Content-Type", "application/problem+json")
			return setBody(r, []byte(`{}`))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			f := newFront(t, ca, func(r *http.Response) error {
				if isPath(r, "/order-plz") {
					return edit(r)
				}
				return nil
			})
			source := f.source(t, name)
			source.Background = true
			w, err := tryFront(t, f, source)
			require.NoError(t, err)
			w.eventually(t, "the failure", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 0 })
			assert.Greater(t, time.Until(w.Status().ACME[0].Next), 20*time.Second, w.events)
			assert.Equal(t, 1, ca.Orders())
		})
	}
}

// With an answer that cannot be used, each order is one that the CA issues for in vain: the next is
// an hour away, or as far as after a validation that failed.
func TestAnswersThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	another := tlstest.NewCA(t)
	chain := func(leaf tlstest.Leaf) func(*http.Response) error {
		return func(r *http.Response) error {
			return setBody(r, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: another.Issue(t, leaf).Leaf.Raw}))
		}
	}
	for what, c := range map[string]struct {
		path string
		edit func(*http.Response) error
		want string
		wait time.Duration
	}{
		"another key":    {"/certZ/", chain(tlstest.Leaf{Names: []string{name}}), "private key does not match", time.Hour},
		"not PEM":        {"/certZ/", func(r *http.Response) error { return setBody(r, []byte("nonsense")) }, "it is cut off or damaged", time.Hour},
		"no order's URL": {"/order-plz", func(r *http.Response) error { r.Header.Del("Location"); return nil }, "did not say its URL", 10 * time.Second},
		"deactivated": {"/authZ/", func(r *http.Response) error { return replaceBody(r, `"pending"`, `"deactivated"`) },
			`calls the authorization "deactivated"`, 10 * time.Second},
		"other terms": {"/order-plz", func(r *http.Response) error {
			r.StatusCode = http.StatusForbidden
			r.Header.Set("Content-Type", "application/problem+json")
			return setBody(r, []byte(`{"type":"urn:ietf:params:acme:error:userActionRequired","detail":"Terms have changed","instance":"https://ca/terms"}`))
		}, "Terms have changed; see https://ca/terms", 10 * time.Second},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			f := newFront(t, ca, func(r *http.Response) error {
				if isPath(r, c.path) {
					return c.edit(r)
				}
				return nil
			})
			source := f.source(t, name)
			source.Background = true
			w, err := tryFront(t, f, source)
			require.NoError(t, err)
			w.serve(t)
			w.eventually(t, "the failure", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 0 })
			status := w.Status().ACME[0]
			assert.Contains(t, status.Error, c.want)
			assert.Greater(t, time.Until(status.Next), c.wait-5*time.Second)
			assert.Equal(t, 1, ca.Orders())
		})
	}
}

// A chain without the issuer of its leaf is not put in service: the last certificate stays, the
// next order is an hour away, and other names are renewed.
func TestChainThatIsBroken(t *testing.T) {
	t.Parallel()
	another := tlstest.NewCA(t)
	ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 12 * time.Second})
	var broken atomic.Bool
	f := newFront(t, ca, func(r *http.Response) error {
		if !isPath(r, "/certZ/") || !broken.Load() {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(body)
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil || leaf.VerifyHostname(name) != nil {
			return setBody(r, body)
		}
		return setBody(r, append(pem.EncodeToMemory(block), another.PEM()...))
	})
	w, err := tryFront(t, f, f.source(t, name, other))
	require.NoError(t, err)
	w.serve(t)
	before := w.mustDial(t, other)
	broken.Store(true)
	w.eventually(t, "the failure", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 0 })
	assert.Contains(t, w.events.of(certmanager.OrderFailed)[0], "is missing")
	require.NoError(t, w.mustDial(t, name).VerifyHostname(name))
	w.eventually(t, "the renewal of the other", func() bool { return !w.mustDial(t, other).Equal(before) })
	w.eventually(t, "the end", func() bool { return len(w.events.of(certmanager.Expired)) > 0 })
	assert.Contains(t, w.events.of(certmanager.Expired)[0], name)
	assert.Empty(t, w.events.of(certmanager.Rejected))
	assert.Equal(t, 2, ca.Orders(name))
	for _, status := range w.Status().ACME {
		if status.Name == name {
			assert.False(t, status.Serving)
			assert.Greater(t, time.Until(status.Next), 50*time.Minute)
		}
	}
}

// A server error that has the type of another problem does not end the program, and is temporary.
func TestServerErrorOfAnotherType(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"orderNotReady", "badNonce", "accountDoesNotExist", "malformed"} {
		for _, path := range []string{"/order-plz", "/authZ/", "/finalize-order/", "/certZ/"} {
			t.Run(kind+path, func(t *testing.T) {
				t.Parallel()
				ca := acmetest.Start(t)
				var once atomic.Bool
				f := newFront(t, ca, func(r *http.Response) error {
					if !isPath(r, path) || once.Swap(true) {
						return nil
					}
					r.StatusCode = http.StatusInternalServerError
					r.Header.Set("Content-Type", "application/problem+json")
					return setBody(r, []byte(`{"type":"urn:ietf:params:acme:error:`+kind+`"}`))
				})
				_, err := tryFront(t, f, f.source(t, name))
				require.NoError(t, err)
			})
		}
	}
}

// While a CA issues, it is asked at growing intervals, and not before its Retry-After has passed.
func TestRetryAfterOfAnOrder(t *testing.T) {
	t.Parallel()
	for after, most := range map[string]int32{"": 15, "0": 15, "10000000000": 15, "Mon, 01 Jan 2001 00:00:00 GMT": 15, "60": 1} {
		t.Run("Retry-After "+after, func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			var answers atomic.Int32
			f := newFront(t, ca, func(r *http.Response) error {
				if !isPath(r, "/finalize-order/") && (!isPath(r, "/my-order/") || answers.Load() == 0) {
					return nil
				}
				answers.Add(1)
				r.Header.Set("Retry-After", after)
				return replaceBody(r, `"valid"`, `"processing"`)
			})
			source := f.source(t, name)
			source.StartTimeout = 6 * time.Second
			_, err := tryFront(t, f, source)
			require.ErrorContains(t, err, "the CA did not decide")
			assert.Positive(t, answers.Load())
			assert.LessOrEqual(t, answers.Load(), most)
			assert.Equal(t, 1, ca.Orders())
		})
	}
}

// A name that is too long for a file name with what is added to it is stored all the same.
func TestLongName(t *testing.T) {
	t.Parallel()
	ca := acmetest.Start(t)
	long := strings.Repeat(strings.Repeat("a", 60)+".", 4) + "test"
	source := &acme.Source{Domains: []string{long}}
	for range 2 {
		w := start(t, ca, source)
		require.Empty(t, w.events.of(certmanager.CacheFailed))
		require.NoError(t, w.Close())
	}
	assert.Equal(t, 1, ca.Orders())
}

// With a clock that is ahead, the certificate that has ended by it is kept, and served when the
// clock is set; none is ordered beside it.
func TestClockAhead(t *testing.T) {
	clock.Step(100 * 24 * time.Hour)
	set := sync.OnceFunc(func() { clock.Step(-100 * 24 * time.Hour) })
	defer set()
	ca := acmetest.Start(t)
	w := start(t, ca, &acme.Source{Domains: []string{name}, Background: true})
	w.serve(t)
	w.eventually(t, "the failure", func() bool { return len(w.events.of(certmanager.OrderFailed)) > 0 })
	assert.Contains(t, w.Status().ACME[0].Error, "if that is ahead, set it")
	set()
	w.eventually(t, "the certificate", func() bool {
		_, err := w.dial(t.Context(), name)
		return err == nil
	})
	assert.Equal(t, 1, ca.Orders())
}

// A certificate that has ended by a clock that is ahead is served again as soon as the clock is
// set, also if the CA issues nothing: it ended while it was served, or before the start.
func TestClockAheadAndNoCA(t *testing.T) {
	const ahead = 100 * 24 * time.Hour
	for _, when := range []string{"at start", "later"} {
		t.Run(when, func(t *testing.T) {
			ca := acmetest.Start(t)
			cache := autocert.DirCache(t.TempDir())
			w := start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache})
			ca.FailValidation(func(string) bool { return true })
			if when == "at start" {
				require.NoError(t, w.Close())
			}
			clock.Step(ahead)
			set := sync.OnceFunc(func() { clock.Step(-ahead) })
			defer set()
			if when == "at start" {
				w = start(t, ca, &acme.Source{Domains: []string{name}, Cache: cache, Background: true})
			}
			w.serve(t)
			w.eventually(t, "the failure", func() bool {
				status := w.Status().ACME[0]
				_, err := w.dial(t.Context(), name)
				return err != nil && !status.Serving && status.Next.Sub(clock.Now()) > 20*time.Second
			})
			set()
			deadline := time.Now().Add(10 * time.Second)
			w.eventually(t, "the certificate", func() bool {
				_, err := w.dial(t.Context(), name)
				return err == nil || time.Now().After(deadline)
			})
			w.mustDial(t, name)
		})
	}
}

// A program whose StartTimeout is over before the CA has decided goes on with its order when it is
// started again.
func TestOrdersAreGoneOnWithAfterARestart(t *testing.T) {
	t.Parallel()
	for what, slow := range map[string]func(*http.Response) error{
		"the authorization": func(r *http.Response) error {
			if isPath(r, "/my-order/") {
				return replaceBody(r, `"ready"`, `"pending"`)
			}
			if !isPath(r, "/authZ/") {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			body = bytes.Replace(body, []byte(`"valid"`), []byte(`"pending"`), 1) // the first is its own
			return setBody(r, bytes.ReplaceAll(body, []byte(`"valid"`), []byte(`"processing"`)))
		},
		"the certificate": func(r *http.Response) error {
			if isPath(r, "/my-order/") {
				return replaceBody(r, `"valid"`, `"processing"`)
			}
			return nil
		},
		"its download": func(r *http.Response) error {
			if isPath(r, "/certZ/") {
				r.StatusCode = http.StatusNotFound
				r.Header.Set("Content-Type", "application/problem+json")
				return setBody(r, []byte(`{"type":"urn:ietf:params:acme:error:malformed"}`))
			}
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var quick atomic.Bool
			ca := acmetest.Start(t)
			f := newFront(t, ca, func(r *http.Response) error {
				if quick.Load() {
					return nil
				}
				return slow(r)
			})
			folder := t.TempDir()
			begin := func() error {
				source := f.source(t, name)
				source.Cache, source.StartTimeout = autocert.DirCache(folder), 3*time.Second
				_, err := tryFront(t, f, source)
				return err
			}
			for range 2 {
				require.ErrorContains(t, begin(), "StartTimeout")
			}
			quick.Store(true)
			require.NoError(t, begin())
			assert.Equal(t, 1, ca.Orders())
			left, err := filepath.Glob(filepath.Join(folder, "*order"))
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}
