package crlfetch_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/certmanager/crlfetch"
	"github.com/ergotls/ergotls/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// web is a web server with one list, of which a test says how it is served.
type web struct {
	*httptest.Server
	requests, unchanged atomic.Int32

	mu   sync.Mutex // guards all below
	body []byte
	etag string
	how  func(w http.ResponseWriter, r *http.Request) // nil: as it should be
}

func newWeb(t *testing.T) *web {
	t.Helper()
	w := &web{}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func (s *web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.mu.Lock()
	body, etag, how := s.body, s.etag, s.how
	s.mu.Unlock()
	switch {
	case how != nil:
		how(w, r)
	case etag != "" && r.Header.Get("If-None-Match") == etag:
		s.unchanged.Add(1)
		w.WriteHeader(http.StatusNotModified)
	default:
		w.Header().Set("ETag", etag)
		w.Write(body)
	}
}

// put serves a list, or whatever.
func (s *web) put(body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.body, s.etag, s.how = body, fmt.Sprintf(`"%d"`, time.Now().UnixNano()), nil
}

func (s *web) fail(how func(http.ResponseWriter, *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.how = how
}

// world is a CA with two clients, and a manager that fetches its list.
type world struct {
	*certmanager.Manager
	t          *testing.T
	ca         *tlstest.CA
	web        *web
	alice, bob *tlstest.Pair
	dir        string

	mu  sync.Mutex // guards log
	log strings.Builder
}

// Write takes the lines of the manager's log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ca := tlstest.NewCA(t)
	return &world{t: t, ca: ca, web: newWeb(t), dir: filepath.Join(t.TempDir(), "lists"),
		alice: ca.Issue(t, tlstest.Leaf{CommonName: "alice"}), bob: ca.Issue(t, tlstest.Leaf{CommonName: "bob"})}
}

func (w *world) source() *crlfetch.Source {
	return &crlfetch.Source{
		Source: staticSource{ca: w.ca, cert: w.ca.Issue(w.t, tlstest.Leaf{}).Certificate()},
		URLs:   []string{w.web.URL + "/list.crl"}, Dir: w.dir,
		MinInterval: 5 * time.Millisecond, MaxInterval: 20 * time.Millisecond, Timeout: 5 * time.Second,
		Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

func (w *world) start(source *crlfetch.Source) error {
	w.t.Helper()
	m, err := certmanager.New(certmanager.Options{Source: source, Logger: slog.New(slog.NewTextHandler(w, nil))})
	if err != nil {
		return err
	}
	w.Manager = m
	w.t.Cleanup(func() { m.Close() })
	return nil
}

// told says whether the log has a text.
func (w *world) told(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.log.String(), text)
}

// in says whether a client gets in.
func (w *world) in(p *tlstest.Pair) bool {
	w.t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", w.ServerTLS())
	require.NoError(w.t, err)
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
		served <- err
	}()
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{
		RootCAs: w.ca.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{p.Certificate()},
	})
	if err == nil {
		conn.Close()
	}
	return <-served == nil
}

func (w *world) eventually(holds func() bool, what string) {
	w.t.Helper()
	require.Eventually(w.t, holds, 30*time.Second, 5*time.Millisecond, what)
}

// list is a list with a number.
func (w *world) list(number int64, revoked ...*tlstest.Pair) []byte {
	w.t.Helper()
	var certs []*x509.Certificate
	for _, p := range revoked {
		certs = append(certs, p.Leaf)
	}
	now := time.Now().Add(-time.Hour).Add(time.Duration(number) * time.Second)
	data, err := w.ca.GenerateCRL(tlstest.CRL{Revoked: certs, Number: number, ThisUpdate: now})
	require.NoError(w.t, err)
	return data
}

// A list is fetched before the first handshake, replaced when the server has a newer one, and not
// sent again when it has not.
func TestFetch(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	require.NoError(t, w.start(w.source()))
	assert.False(t, w.in(w.alice), "revoked")
	assert.True(t, w.in(w.bob))
	w.eventually(func() bool { return w.web.unchanged.Load() > 2 }, "answers without a list")
	der, _ := pem.Decode(w.list(2, w.alice, w.bob))
	w.web.put(der.Bytes)
	w.eventually(func() bool { return !w.in(w.bob) }, "the new list is in service")
	require.NoError(t, w.Close())

	// After a restart without the server the list is there.
	w.web.fail(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	source := w.source()
	source.Required = true
	require.NoError(t, w.start(source))
	assert.False(t, w.in(w.bob))
}

// unwatched is a source that cannot notice changes, for example for lack of inotify instances.
type unwatched struct {
	staticSource
	watch func() error
}

func (u unwatched) Watch(context.Context, func(), func(certmanager.Event)) error { return u.watch() }

// Lists are fetched although the wrapped source cannot be watched.
func TestWatchOfTheSourceFails(t *testing.T) {
	for name, watch := range map[string]func() error{
		"an error":   func() error { return errors.New("too many open files") },
		"a panic":    func() error { panic("of its Watch") },
		"no changes": func() error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.web.put(w.list(1, w.alice))
			source := w.source()
			source.Source, source.Required = unwatched{source.Source.(staticSource), watch}, true
			require.NoError(t, w.start(source))
			assert.False(t, w.in(w.alice))
			w.web.put(w.list(2, w.alice, w.bob))
			w.eventually(func() bool { return !w.in(w.bob) }, "the new list is in service")
			assert.Equal(t, name != "no changes", w.told("file events are not reliable"))
		})
	}
}

// panics is a Transport that panics until it is told not to.
type panics struct {
	http.RoundTripper
	over atomic.Bool
}

func (p *panics) RoundTrip(r *http.Request) (*http.Response, error) {
	if !p.over.Load() {
		panic("of the Client")
	}
	return p.RoundTripper.RoundTrip(r)
}

// A Client that panics is a failure like any other.
func TestClientThatPanics(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	source := w.source()
	transport := &panics{RoundTripper: source.Client.Transport}
	source.Client = &http.Client{Transport: transport}
	require.NoError(t, w.start(source))
	assert.True(t, w.told("the request panicked: of the Client"))
	transport.over.Store(true)
	w.eventually(func() bool { return !w.in(w.alice) }, "the list is in service")
}

// A list of version 1, which openssl makes without crl_extensions, is used, as from files.
func TestListOfVersion1(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	now := time.Now().UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	ca, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}} // ecdsa-with-SHA256
	//lint:ignore SA1019 x509.CreateRevocationList makes only version 2
	signed, err := asn1.Marshal(pkix.TBSCertificateList{
		Signature: algorithm, Issuer: ca.Subject.ToRDNSequence(), ThisUpdate: now, NextUpdate: now.Add(time.Hour),
		RevokedCertificates: []pkix.RevokedCertificate{{SerialNumber: big.NewInt(7), RevocationTime: now}},
	})
	require.NoError(t, err)
	sum := sha256.Sum256(signed)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	require.NoError(t, err)
	list, err := asn1.Marshal(struct {
		Signed    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: signed}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	require.NoError(t, err)

	w := newWorld(t)
	w.web.put(list)
	for range 2 { // the second time from Dir
		source := w.source()
		inner := source.Source.(staticSource)
		inner.more = []*x509.Certificate{ca}
		source.Source, source.Required = inner, true
		require.NoError(t, w.start(source))
		lists := w.Status().CRLs
		require.Len(t, lists, 1)
		assert.Equal(t, 1, lists[0].Revoked)
		require.NoError(t, w.Close())
		w.web.fail(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	}
}

// Whatever a server does, the last good list stays in service, and the reason is told.
func TestFailures(t *testing.T) {
	w := newWorld(t)
	good := w.list(5, w.alice)
	w.web.put(good)
	require.NoError(t, w.start(w.source()))
	other := tlstest.NewCA(t)
	sameName := tlstest.NewCA(t, func(c *x509.Certificate) { c.Subject = w.ca.Certificate().Subject })
	future, err := w.ca.GenerateCRL(tlstest.CRL{Number: 9, ThisUpdate: time.Now().Add(48 * time.Hour), NextUpdate: time.Now().Add(72 * time.Hour)})
	require.NoError(t, err)
	answer := func(body []byte) func() { return func() { w.web.put(body) } }
	status := func(code int) func() {
		return func() { w.web.fail(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(code) }) }
	}
	for name, test := range map[string]struct {
		fail func()
		says string
	}{
		"not found":        {status(http.StatusNotFound), "404 Not Found"},
		"server error":     {status(http.StatusInternalServerError), "500 Internal Server Error"},
		"a page":           {answer([]byte("<html>please log in</html>")), "it is not a revocation list"},
		"empty":            {answer(nil), "it is not a revocation list"},
		"cut off":          {answer(good[:len(good)/2]), "it is not a revocation list"},
		"another CA's":     {answer(other.CRL(t)), "is not among the CAs of the source"},
		"forged":           {answer(sameName.CRL(t)), "its signature is not that of"},
		"older":            {answer(w.list(4)), "it is older"},
		"two lists":        {answer(append(w.list(6), other.CRL(t)...)), "it is 2 revocation lists"},
		"of the future":    {answer(future), "in the future"},
		"connection reset": {func() { w.web.fail(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }) }, "EOF"},
		"less than announced": {func() {
			w.web.fail(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Length", fmt.Sprint(len(good)))
				rw.Write(good[:10])
			})
		}, "unexpected EOF"},
		"redirects for ever": {func() {
			w.web.fail(func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/list.crl", http.StatusFound) })
		}, "stopped after 10 redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			test.fail()
			w.eventually(func() bool { return w.told(test.says) }, "the failure is told")
			assert.False(t, w.in(w.alice), "still revoked")
			assert.True(t, w.in(w.bob))
			w.web.put(good)
			before := w.web.requests.Load()
			w.eventually(func() bool { return w.web.requests.Load() > before+1 }, "it asks again")
		})
	}
	w.web.put(w.list(10))
	w.eventually(func() bool { return w.in(w.alice) }, "the next good list counts")
}

// A list that is too large, or that comes too slowly, is given up.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	source := w.source()
	source.MaxSize = 100
	require.NoError(t, w.start(source))
	w.eventually(func() bool { return w.told("more than 100 bytes (MaxSize)") }, "too large")
	assert.True(t, w.in(w.alice), "there is no list")
	require.NoError(t, w.Close())

	w.web.fail(func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusOK)
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	source = w.source()
	source.Timeout = 20 * time.Millisecond
	require.NoError(t, w.start(source))
	w.eventually(func() bool { return w.told("deadline exceeded") }, "too slow")
}

// Without Required New goes on without a list and says so; with it New fails.
func TestRequired(t *testing.T) {
	w := newWorld(t)
	w.web.fail(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusServiceUnavailable) })
	source := w.source()
	source.Required = true
	err := w.start(source)
	require.ErrorContains(t, err, "there is no revocation list of "+w.web.URL+"/list.crl yet")
	assert.ErrorContains(t, err, "503")
	require.NoError(t, w.start(w.source()))
	assert.True(t, w.in(w.alice))
	w.web.put(w.list(1, w.alice))
	w.eventually(func() bool { return !w.in(w.alice) }, "the list is used when it comes")
}

// Files in Dir are checked like answers.
func TestDir(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	require.NoError(t, w.start(w.source()))
	require.NoError(t, w.Close())
	entries, err := os.ReadDir(w.dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	path := filepath.Join(w.dir, entries[0].Name())
	for name, data := range map[string][]byte{"garbage": []byte("garbage"), "forged": tlstest.NewCA(t).CRL(t), "empty": nil} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(path, data, 0o600))
			w.web.put(w.list(1, w.alice))
			require.NoError(t, w.start(w.source()))
			assert.False(t, w.in(w.alice), "it was fetched anew")
			require.NoError(t, w.Close())
		})
	}
	// A folder that cannot be written does not keep the list from service.
	source := w.source()
	source.Dir = filepath.Join(path, "below a file")
	require.NoError(t, w.start(source))
	assert.False(t, w.in(w.alice))
	w.eventually(func() bool { return w.told("could not be written to Dir") }, "it is told")
}

// Distribution points of our own certificates are followed, and what they cannot be is told.
func TestDistributionPoints(t *testing.T) {
	w := newWorld(t)
	w.web.put(w.list(1, w.alice))
	points := []string{w.web.URL + "/of-the-ca.crl", "ldap://ca.example.test/list"}
	root := tlstest.NewCA(t)
	sub := root.Intermediate(t, func(c *x509.Certificate) { c.CRLDistributionPoints = points })
	source := w.source()
	source.Source = staticSource{ca: w.ca, cert: w.ca.Issue(t, tlstest.Leaf{}).Certificate(), more: []*x509.Certificate{sub.Certificate()}}
	source.URLs, source.DistributionPoints = nil, true
	require.NoError(t, w.start(source))
	assert.False(t, w.in(w.alice))
	assert.True(t, w.told("only http and https are"))
}

func TestMistakes(t *testing.T) {
	inner := certmanager.Static{}
	for name, test := range map[string]struct {
		source *crlfetch.Source
		says   string
	}{
		"no source":   {&crlfetch.Source{URLs: []string{"http://example.test"}}, "Source.Source is missing"},
		"nothing":     {&crlfetch.Source{Source: inner}, "there is nothing to fetch"},
		"no address":  {&crlfetch.Source{Source: inner, URLs: []string{"example.test/list"}}, "Source.URLs[0]"},
		"a file":      {&crlfetch.Source{Source: inner, URLs: []string{"file:///etc/list"}}, "is not an http or https address"},
		"negative":    {&crlfetch.Source{Source: inner, DistributionPoints: true, Timeout: -1}, "must not be negative"},
		"wrong order": {&crlfetch.Source{Source: inner, DistributionPoints: true, MinInterval: 48 * time.Hour}, "more than MaxInterval"},
		"inner's own": {&crlfetch.Source{Source: certmanager.Files{}, DistributionPoints: true}, "Files names no file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := certmanager.New(certmanager.Options{Source: test.source, Logger: slog.New(slog.DiscardHandler)})
			require.ErrorContains(t, err, test.says)
		})
	}
}

// The longest duration and the largest number mean no limit.
func TestLargestOptions(t *testing.T) {
	w := newWorld(t)
	list, err := w.ca.GenerateCRL(tlstest.CRL{Revoked: []*x509.Certificate{w.alice.Leaf}, NextUpdate: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)})
	require.NoError(t, err)
	w.web.put(list)
	source := w.source()
	source.Timeout, source.MaxSize = math.MaxInt64, math.MaxInt64
	require.NoError(t, w.start(source))
	assert.False(t, w.in(w.alice))
	assert.True(t, w.in(w.bob))
}
