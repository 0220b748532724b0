package acmetest_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/acme"

	"github.com/ergotls/ergotls/tlstest/acmetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is an ACME client with an account, that answers challenges.
type client struct {
	*acme.Client
	ca *acmetest.Server
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func newClient(t *testing.T, ca *acmetest.Server) *client {
	t.Helper()
	c := &client{&acme.Client{Key: newKey(t), DirectoryURL: ca.Directory(), HTTPClient: ca.HTTPClient()}, ca}
	c.RetryBackoff = func(n int, _ *http.Request, r *http.Response) time.Duration {
		if r.StatusCode == http.StatusBadRequest { // a rejected nonce
			return time.Millisecond
		}
		return -1
	}
	return c
}

func (c *client) register(t *testing.T) *client {
	t.Helper()
	_, err := c.Register(t.Context(), &acme.Account{}, acme.AcceptTOS)
	require.NoError(t, err)
	return c
}

// obtain gets a certificate with one kind of challenge.
func (c *client) obtain(ctx context.Context, kind, name string, options ...acme.OrderOption) (*x509.Certificate, [][]byte, error) {
	order, err := c.AuthorizeOrder(ctx, acme.DomainIDs(name), options...)
	if err != nil {
		return nil, nil, err
	}
	authorization, err := c.GetAuthorization(ctx, order.AuthzURLs[0])
	if err != nil {
		return nil, nil, err
	}
	for _, challenge := range authorization.Challenges {
		if challenge.Type == kind {
			if err := c.answer(ctx, challenge, name); err != nil {
				return nil, nil, err
			}
		}
	}
	if _, err := c.WaitAuthorization(ctx, authorization.URI); err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		return nil, nil, err
	}
	chain, _, err := c.CreateCertFromOrder(ctx, order, csr, true)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(chain[0])
	return leaf, chain, err
}

// answer serves the answer to a challenge until ctx ends.
func (c *client) answer(ctx context.Context, challenge *acme.Challenge, name string) error {
	if challenge.Type == "http-01" {
		response, err := c.HTTP01ChallengeResponse(challenge.Token)
		if err != nil {
			return err
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(response)) }))
		context.AfterFunc(ctx, server.Close)
		c.ca.HTTP01(server.Listener.Addr().String())
	} else {
		cert, err := c.TLSALPN01ChallengeCert(challenge.Token, name)
		if err != nil {
			return err
		}
		listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{acme.ALPNProto}})
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { listener.Close() })
		go func() {
			for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
				conn.(*tls.Conn).Handshake()
				conn.Close()
			}
		}()
		c.ca.TLSALPN01(listener.Addr().String())
	}
	_, err := c.Accept(ctx, challenge)
	return err
}

func TestIssue(t *testing.T) {
	for _, kind := range []string{"http-01", "tls-alpn-01"} {
		t.Run(kind, func(t *testing.T) {
			ca := acmetest.StartWith(t, acmetest.Options{Lifetime: 20 * time.Second})
			c := newClient(t, ca).register(t)
			leaf, chain, err := c.obtain(t.Context(), kind, "a.example.test")
			require.NoError(t, err)

			intermediates := x509.NewCertPool()
			for _, der := range chain[1:] {
				cert, err := x509.ParseCertificate(der)
				require.NoError(t, err)
				intermediates.AddCert(cert)
			}
			_, err = leaf.Verify(x509.VerifyOptions{DNSName: "a.example.test", Roots: ca.Roots(), Intermediates: intermediates})
			require.NoError(t, err)
			assert.Equal(t, 20*time.Second, leaf.NotAfter.Sub(leaf.NotBefore)+time.Second)
			assert.Equal(t, 1, ca.Orders())
			assert.Equal(t, 1, ca.Orders("a.example.test"))
			assert.Zero(t, ca.Orders("b.example.test"))
			assert.Equal(t, 1, ca.Accounts())
		})
	}
}

func TestNobodyAnswersTheChallenge(t *testing.T) {
	ca := acmetest.Start(t)
	c := newClient(t, ca).register(t)
	order, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"))
	require.NoError(t, err)
	authorization, err := c.GetAuthorization(t.Context(), order.AuthzURLs[0])
	require.NoError(t, err)
	for _, challenge := range authorization.Challenges {
		if challenge.Type == "tls-alpn-01" {
			_, err = c.Accept(t.Context(), challenge)
			require.NoError(t, err)
		}
	}
	_, err = c.WaitAuthorization(t.Context(), authorization.URI)
	require.ErrorContains(t, err, "Failed to connect")
}

func TestSeveralTargetsTakeTurns(t *testing.T) {
	ca := acmetest.Start(t)
	c := newClient(t, ca).register(t)
	order, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"))
	require.NoError(t, err)
	authorization, err := c.GetAuthorization(t.Context(), order.AuthzURLs[0])
	require.NoError(t, err)
	asked := make(chan string, 10)
	var targets []string
	for range 2 {
		server := httptest.NewUnstartedServer(nil)
		addr := server.Listener.Addr().String()
		targets = append(targets, addr)
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- addr
			response, _ := c.HTTP01ChallengeResponse(r.URL.Path[len("/.well-known/acme-challenge/"):])
			w.Write([]byte(response))
		})
		server.Start()
		defer server.Close()
	}
	ca.HTTP01(targets...)
	for _, challenge := range authorization.Challenges {
		if challenge.Type == "http-01" {
			_, err = c.Accept(t.Context(), challenge)
			require.NoError(t, err)
		}
	}
	_, err = c.WaitAuthorization(t.Context(), authorization.URI)
	require.NoError(t, err)
	seen := map[string]bool{}
	for len(asked) > 0 {
		seen[<-asked] = true
	}
	assert.Len(t, seen, 2)
}

func TestFailValidation(t *testing.T) {
	ca := acmetest.Start(t)
	ca.FailValidation(func(name string) bool { return name == "bad.example.test" })
	c := newClient(t, ca).register(t)
	_, _, err := c.obtain(t.Context(), "tls-alpn-01", "bad.example.test")
	require.ErrorContains(t, err, "bad.example.test")
	_, _, err = c.obtain(t.Context(), "tls-alpn-01", "good.example.test")
	require.NoError(t, err)
	ca.FailValidation(nil)
	_, _, err = c.obtain(t.Context(), "tls-alpn-01", "bad.example.test")
	require.NoError(t, err)
}

func TestRejectNonces(t *testing.T) {
	ca := acmetest.Start(t)
	c := newClient(t, ca).register(t)
	ca.RejectNonces(50)
	before := ca.Requests()
	_, _, err := c.obtain(t.Context(), "http-01", "a.example.test")
	require.NoError(t, err)
	t.Logf("%d requests", ca.Requests()-before)

	ca.RejectNonces(100)
	c.RetryBackoff = func(int, *http.Request, *http.Response) time.Duration { return -1 }
	_, err = c.AuthorizeOrder(t.Context(), acme.DomainIDs("b.example.test"))
	var problem *acme.Error
	require.ErrorAs(t, err, &problem)
	assert.Equal(t, "urn:ietf:params:acme:error:badNonce", problem.ProblemType)
}

func TestExternalAccount(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	ca := acmetest.StartWith(t, acmetest.Options{ExternalAccounts: map[string][]byte{"kid-1": secret}})
	c := newClient(t, ca)
	_, err := c.Register(t.Context(), &acme.Account{}, acme.AcceptTOS)
	require.ErrorContains(t, err, "externalAccountRequired")
	_, err = c.Register(t.Context(), &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: "kid-1", Key: []byte("wrong")}}, acme.AcceptTOS)
	require.Error(t, err)
	_, err = c.Register(t.Context(), &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: "kid-1", Key: secret}}, acme.AcceptTOS)
	require.NoError(t, err)
}

func TestProfiles(t *testing.T) {
	ca := acmetest.StartWith(t, acmetest.Options{Profiles: map[string]time.Duration{"short": time.Hour, "long": 48 * time.Hour}})
	c := newClient(t, ca).register(t)
	leaf, _, err := c.obtain(t.Context(), "http-01", "a.example.test", acme.WithOrderIssuanceProfile("short"))
	require.NoError(t, err)
	assert.Equal(t, time.Hour, leaf.NotAfter.Sub(leaf.NotBefore)+time.Second)
	_, err = c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"), acme.WithOrderIssuanceProfile("none"))
	require.Error(t, err)
}

func TestRefuse(t *testing.T) {
	ca := acmetest.Start(t)
	c := newClient(t, ca).register(t)
	for _, status := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable} {
		ca.Refuse(status, 1500*time.Millisecond)
		_, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"))
		var problem *acme.Error
		require.ErrorAs(t, err, &problem)
		assert.Equal(t, status, problem.StatusCode)
		assert.Equal(t, "2", problem.Header.Get("Retry-After"))
	}
	ca.Refuse(0, 0)
	_, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"))
	require.NoError(t, err)
	assert.Equal(t, 1, ca.Orders(), "refused orders do not count")
}

func TestSlowAndHanging(t *testing.T) {
	ca := acmetest.Start(t)
	c := newClient(t, ca).register(t)
	ca.Slow(50 * time.Millisecond)
	begin := time.Now()
	_, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, time.Since(begin), 50*time.Millisecond)
	ca.Slow(0)

	ca.Hang(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = c.AuthorizeOrder(ctx, acme.DomainIDs("a.example.test"))
	require.ErrorIs(t, err, context.DeadlineExceeded)

	answered := make(chan error, 1)
	before := ca.Requests()
	go func() {
		_, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"))
		answered <- err
	}()
	require.Eventually(t, func() bool { return ca.Requests() > before }, 10*time.Second, time.Millisecond)
	ca.Hang(false)
	require.NoError(t, <-answered)
}

func TestCloseWhileHanging(t *testing.T) {
	ca, err := acmetest.New(acmetest.Options{})
	require.NoError(t, err)
	ca.Hang(true)
	answered := make(chan error, 1)
	go func() {
		response, err := ca.HTTPClient().Get(ca.Directory())
		if err == nil {
			err = response.Body.Close()
		}
		answered <- err
	}()
	require.Eventually(t, func() bool { return ca.Requests() > 0 }, 10*time.Second, time.Millisecond)
	ca.Close()
	ca.Close()
	<-answered
	_, err = net.Dial("tcp", ca.Directory()[len("https://"):len(ca.Directory())-len("/dir")])
	require.Error(t, err)
}

func TestLoseAccounts(t *testing.T) {
	ca := acmetest.Start(t)
	c := newClient(t, ca).register(t)
	require.NoError(t, ca.LoseAccounts())
	_, err := c.AuthorizeOrder(t.Context(), acme.DomainIDs("a.example.test"))
	require.ErrorContains(t, err, "accountDoesNotExist")

	again := newClient(t, ca)
	again.Key = c.Key
	again.register(t)
	_, _, err = again.obtain(t.Context(), "http-01", "a.example.test")
	require.NoError(t, err)
	assert.Equal(t, 2, ca.Accounts())
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]acmetest.Options{
		"fractions": {Lifetime: 1500 * time.Millisecond},
		"negative":  {Lifetime: -time.Second},
		"both":      {Lifetime: time.Second, Profiles: map[string]time.Duration{"a": time.Second}},
		"no key":    {ExternalAccounts: map[string][]byte{"a": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := acmetest.New(o)
			require.ErrorContains(t, err, "acmetest:")
		})
	}
}

// Two at a time, with different settings, do not disturb each other.
func TestParallel(t *testing.T) {
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			ca := acmetest.Start(t)
			_, _, err := newClient(t, ca).register(t).obtain(t.Context(), "http-01", "a.example.test")
			require.NoError(t, err)
			assert.Equal(t, 1, ca.Orders())
		})
	}
}

// An order that is called ready after it was finalized, one that is called not ready, and a
// certificate that is not found at once.
func TestFinalizeFaults(t *testing.T) {
	ca := acmetest.Start(t)
	c := newClient(t, ca).register(t)
	order := func() error {
		_, _, err := c.obtain(t.Context(), "tls-alpn-01", "a.example.test")
		return err
	}
	require.NoError(t, order())
	for what, fault := range map[string]func(int){"ready": ca.StayReady, "orderNotReady": ca.NotReady, "does not find": ca.NoCertificate} {
		fault(100)
		require.ErrorContains(t, order(), what)
		fault(0)
		require.NoError(t, order(), what)
	}
}

// Records that a provider writes are those that the CA and everybody else finds.
func TestProvider(t *testing.T) {
	ca := acmetest.Start(t)
	p := ca.Provider()
	record := []libdns.Record{libdns.TXT{Name: "_acme-challenge.a", Text: "value"}}
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, ca.DNS())
	}}
	_, err := p.AppendRecords(t.Context(), "example.test.", record)
	require.NoError(t, err)
	ca.SetCNAME("_acme-challenge.b.example.test", "_acme-challenge.a.example.test")
	for _, name := range []string{"_acme-challenge.a.example.test.", "_acme-challenge.b.example.test."} {
		values, err := resolver.LookupTXT(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, []string{"value"}, values)
	}
	all, err := p.GetRecords(t.Context(), "example.test.")
	require.NoError(t, err)
	assert.Equal(t, record, all)
	p.Lie(true)
	_, err = p.DeleteRecords(t.Context(), "example.test.", record)
	require.NoError(t, err)
	assert.NotEmpty(t, ca.TXT(), "nothing was done")
	p.Lie(false)
	_, err = p.DeleteRecords(t.Context(), "example.test.", record)
	require.NoError(t, err)
	assert.Empty(t, ca.TXT())
	p.Fail(assert.AnError)
	_, err = p.AppendRecords(t.Context(), "example.test.", record)
	require.ErrorIs(t, err, assert.AnError)
}
