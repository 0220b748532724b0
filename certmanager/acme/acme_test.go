package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	xacme "github.com/mholt/acmez/v3/acme"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/acme/autocert"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/needs"
	"github.com/ergotls/ergotls/tlstest"
)

const day = 24 * time.Hour

func TestRenewalTime(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		lifetime, before time.Duration
		earliest, latest time.Duration // before the end
		clamped          bool
	}{
		{90 * day, 0, 33 * day, 30 * day, false},
		{6 * day, 0, 52*time.Hour + 48*time.Minute, 48 * time.Hour, false},
		{time.Hour, 0, 22 * time.Minute, 20 * time.Minute, false},
		{30 * time.Second, 0, 11 * time.Second, 10 * time.Second, false},
		{90 * day, 20 * day, 22 * day, 20 * day, false},
		{90 * day, 45 * day, 49*day + 12*time.Hour, 45 * day, false},
		{45 * day, 30 * day, 24*day + 18*time.Hour, 22*day + 12*time.Hour, true},
		{time.Hour, 30 * day, 33 * time.Minute, 30 * time.Minute, true},
	} {
		name := fmt.Sprintf("%v before %v", c.lifetime, c.before)
		end := begin.Add(c.lifetime)
		window, clamped := renewalWindow(c.lifetime, c.before)
		assert.Equal(t, c.clamped, clamped, name)
		assert.Equal(t, c.latest, end.Sub(renewalTime(end, window, 0)), name)
		assert.InDelta(t, c.earliest, end.Sub(renewalTime(end, window, 1)), 1, name)
		assert.True(t, renewalTime(end, window, 1).After(begin.Add(c.lifetime/3)), "no order after the other")
	}
}

func TestSuggestedTime(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	leaf := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(90 * day)}
	for what, c := range map[string]struct {
		start, end time.Duration // after begin
		chance     float64
		want       time.Duration
	}{
		"the beginning of the window":   {50 * day, 52 * day, 0, 50 * day},
		"its middle":                    {50 * day, 52 * day, 0.5, 51 * day},
		"later than ours":               {65 * day, 67 * day, 0.5, 66 * day},
		"too late for retries":          {80 * day, 90 * day, 0.5, 75 * day},
		"after the end":                 {200 * day, 201 * day, 0, 75 * day},
		"now":                           {10 * day, 10*day + time.Second, 0, 10 * day},
		"long ago: not again and again": {-day, -day + time.Second, 0, 4 * time.Hour},
	} {
		got := suggestedTime(begin.Add(c.start), begin.Add(c.end), leaf, 30*day, c.chance)
		assert.Equal(t, c.want, got.Sub(begin), what)
	}
}

func TestRetryDelay(t *testing.T) {
	for what, c := range map[string]struct {
		failures              int
		invalid               bool
		remaining, retryAfter time.Duration
		want                  time.Duration
	}{
		"the first":                 {1, false, 0, 0, time.Second},
		"the third":                 {3, false, 0, 0, 9 * time.Second},
		"a validation":              {1, true, 0, 0, 30 * time.Second},
		"its third":                 {3, true, 0, 0, 270 * time.Second},
		"many":                      {1000, false, 0, 0, time.Hour},
		"many validations":          {1000, true, 0, 0, 6 * time.Hour},
		"little is left":            {1000, true, time.Hour, 0, 6 * time.Minute},
		"much is left":              {1000, true, 30 * day, 0, 6 * time.Hour},
		"much, with the CA down":    {1000, false, 30 * day, 0, 6 * time.Hour},
		"next to nothing is left":   {5, true, time.Millisecond, 0, 100 * time.Millisecond},
		"the CA asks for more":      {1, false, 0, time.Minute, time.Minute},
		"also where little is left": {1, false, time.Minute, time.Hour, time.Hour},
		"the CA asks for less":      {3, true, 0, time.Second, 270 * time.Second},
		"the CA asks for the moon":  {1, false, 0, 1000 * day, day},
	} {
		assert.Equal(t, c.want, retryDelay(c.failures, c.invalid, c.remaining, c.retryAfter, 0), what)
		most := retryDelay(c.failures, c.invalid, c.remaining, c.retryAfter, 1)
		assert.LessOrEqual(t, most, max(c.want+c.want/5, c.retryAfter), what)
	}
}

// A name whose validation fails meets no CA's limit of five failures in an hour, with and without a
// certificate in service.
func TestFailedValidationsPerHour(t *testing.T) {
	for _, remaining := range []time.Duration{0, 30 * day} {
		var attempts []time.Duration
		at := time.Duration(0)
		for failures := 1; at < 10*day; failures++ {
			attempts = append(attempts, at)
			at += retryDelay(failures, true, remaining, 0, 0)
		}
		for i := range len(attempts) - 5 {
			assert.Greater(t, attempts[i+5]-attempts[i], time.Hour, "attempts %d to %d", i, i+5)
		}
	}
}

// The first attempt tries all kinds of challenge. After a failed validation each tries one, in turn.
func TestKindsOfChallenge(t *testing.T) {
	const alpn, web = xacme.ChallengeTypeTLSALPN01, xacme.ChallengeTypeHTTP01
	s := &state{}
	s.http01.Store(1)
	for failures, want := range [][]string{{alpn, web}, {web}, {alpn}, {web}} {
		refused := &name{text: "a.test", failures: failures}
		if failures > 0 {
			refused.err = &validationError{challenge: alpn, err: errors.New("connection refused")}
		}
		assert.Equal(t, want, s.challenges(refused))
	}
	down := &name{text: "a.test", failures: 3, err: context.DeadlineExceeded}
	assert.Equal(t, []string{alpn, web}, s.challenges(down), "the CA has validated nothing")
}

// Whatever the lifetime: a CA that is down for nine tenths of the renewal window is found back
// before the certificate ends, with a tolerable number of attempts.
func TestRetriesAreInTime(t *testing.T) {
	for _, lifetime := range []time.Duration{20 * time.Second, time.Hour, 6 * day, 90 * day} {
		for _, invalid := range []bool{false, true} {
			window, _ := renewalWindow(lifetime, 0)
			now, attempts := time.Duration(0), 0 // since the window began
			for now < window*9/10 {
				attempts++
				now += retryDelay(attempts, invalid, window-now, 0, 1)
			}
			assert.Less(t, now, window-window/100, "%v", lifetime)
			assert.Less(t, attempts, 200, "%v", lifetime)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	of := func(value string) time.Duration { return retryAfter(http.Header{"Retry-After": {value}}, now) }
	assert.Equal(t, 120*time.Second, of("120"))
	assert.Equal(t, time.Minute, of("Thu, 01 Jan 2026 00:01:00 GMT"))
	assert.Zero(t, of("Wed, 31 Dec 2025 00:00:00 GMT"))
	for _, nonsense := range []string{"", "-5", "soon", "99999999999999999999"} {
		assert.Zero(t, of(nonsense), nonsense)
	}
	assert.Zero(t, retryAfter(nil, now))
	assert.Equal(t, time.Minute, retryAfterOf(fmt.Errorf("order: %w", &refusal{err: xacme.Problem{Status: 503}, after: time.Minute})))
	assert.Zero(t, retryAfterOf(errors.New("other")))
}

func TestErrorClasses(t *testing.T) {
	problem := func(status int, kind string) error {
		return fmt.Errorf("order: %w", &refusal{err: xacme.Problem{Status: status, Type: xacme.ProblemTypeNamespace + kind}})
	}
	for _, err := range []error{&validationError{challenge: "dns-01", err: errors.New("x")}, problem(403, "unauthorized"), problem(400, "malformed"), certmanager.ErrInvalid} {
		assert.True(t, isInvalid(err), "%v", err)
		assert.False(t, isTemporary(err), "%v", err)
	}
	for _, err := range []error{context.DeadlineExceeded, problem(429, "rateLimited"), problem(503, ""), problem(403, "orderNotReady"), &refusal{err: xacme.Problem{Status: 503}}} {
		assert.False(t, isInvalid(err), "%v", err)
		assert.True(t, isTemporary(err), "%v", err)
	}
	assert.False(t, isInvalid(nil))
}

// What a CA says is in the error once, without what is empty.
func TestErrorText(t *testing.T) {
	for want, problem := range map[string]xacme.Problem{
		"503 Service Unavailable: busy":               {Status: 503, Detail: "busy"},
		"503 Service Unavailable":                     {Status: 503},
		"429 Too Many Requests rateLimited: too many": {Status: 429, Type: xacme.ProblemTypeRateLimited, Detail: "too many"},
	} {
		assert.EqualError(t, &refusal{err: problem}, want)
	}
}

func TestNormalName(t *testing.T) {
	for in, want := range map[string]string{
		"www.example.test": "www.example.test", "WWW.Example.Test.": "www.example.test",
		"bücher.example.test": "xn--bcher-kva.example.test", "xn--bcher-kva.example.test": "xn--bcher-kva.example.test",
	} {
		got, err := normalName(in)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, in := range []string{"", ".", "localhost", "*.example.test", "127.0.0.1", "::1", "a b.test", "a..test", strings.Repeat("a.", 150) + "test", "a.test/../b"} {
		_, err := normalName(in)
		assert.ErrorIs(t, err, certmanager.ErrInvalid, in)
	}
}

// What is no DNS name is called what it is, with what to write instead.
func TestWhyNoName(t *testing.T) {
	for in, want := range map[string]string{
		"": "is empty", "a b.test": "has a space", "a.test,b.test": "separator", "https://a.test": "is a URL", "a.test/x": "is a URL", "a@b.test": "e-mail",
		"192.0.2.1": "IP address", "2001:db8::1": "IP address", "a.test:443": `has a port: give "a.test"`, "*.a.test": "wildcard", "a.*.test": "pattern",
		"localhost": "no dot", "a..test": "not a DNS name", "[2001:db8::1]:443": `give "2001:db8::1"`, "[2001:db8::1]": `give "2001:db8::1"`,
		"fe80::1%eth0": "one network interface",
	} {
		_, err := normalName(in)
		require.ErrorContains(t, err, want, in)
		assert.ErrorContains(t, err, fmt.Sprintf("%q", in))
	}
}

func TestOptions(t *testing.T) {
	for want, source := range map[string]*Source{
		"both empty": {},
		"any name":   {HostPolicy: func(context.Context, string) error { return nil }},
		"wildcard":   {Domains: []string{"*.example.test"}},
		"negative":   {Domains: []string{"a.example.test"}, RenewBefore: -1},
		"Key 7":      {Domains: []string{"a.example.test"}, Key: 7},
		"stagging":   {Domains: []string{"a.example.test"}, Directory: "stagging"},
		"https URL":  {Domains: []string{"a.example.test"}, Directory: "http://ca.test/directory"},
		"ExternalAccount: KeyID or MACKey is empty": {Domains: []string{"a.example.test"}, ExternalAccount: &ExternalAccount{KeyID: "kid"}},
		"not base64url": {Domains: []string{"a.example.test"}, Fallbacks: []CA{{Directory: "staging", ExternalAccount: &ExternalAccount{"kid", "a+b"}}}},
		"Listen:":       {Domains: []string{"a.example.test"}, Cache: autocert.DirCache(t.TempDir()), Listen: "nowhere"},
	} {
		began := time.Now()
		_, err := certmanager.New(certmanager.Options{Source: source})
		require.ErrorContains(t, err, want)
		assert.Less(t, time.Since(began), 10*time.Second)
	}
	o, err := (&Source{Domains: []string{"A.example.test", "a.example.test."}}).ready()
	require.NoError(t, err)
	assert.Equal(t, []string{"a.example.test"}, o.Domains)
	assert.Equal(t, autocert.DefaultACMEDirectory, o.Directory)
	assert.Equal(t, 5*time.Second, o.HandshakeTimeout)
	assert.Equal(t, time.Minute, o.StartTimeout)
	assert.Contains(t, string(o.Cache.(autocert.DirCache)), "golang-autocert")
	o, err = (&Source{Domains: []string{"a.example.test"}, Directory: "staging"}).ready()
	require.NoError(t, err)
	assert.Contains(t, o.Directory, "staging")
}

// Only one Manager at a time has the source.
func TestSourceBelongsToOneManager(t *testing.T) {
	source := &Source{HostPolicy: autocert.HostWhitelist("a.example.test"), Cache: autocert.DirCache(t.TempDir()), Directory: "https://127.0.0.1:1/"}
	m, err := certmanager.New(certmanager.Options{Source: source})
	require.NoError(t, err)
	_, err = certmanager.New(certmanager.Options{Source: source})
	require.ErrorContains(t, err, "another Manager")
	_, err = m.DryRun(source)
	require.ErrorContains(t, err, "another Manager")
	require.NoError(t, m.Close())
	m, err = certmanager.New(certmanager.Options{Source: source})
	require.NoError(t, err)
	require.NoError(t, m.Close())
}

// cacheEntry makes a cache entry.
func cacheEntry(t testing.TB, name string, kind tlstest.KeyType) (tls.Certificate, []byte) {
	t.Helper()
	pair := tlstest.NewCA(t).Issue(t, tlstest.Leaf{Names: []string{name}, Key: kind})
	data, err := encodeCached(leafOf(pair.Certificate()))
	require.NoError(t, err)
	return pair.Certificate(), data
}

func leafOf(cert tls.Certificate) *tls.Certificate { return &cert }

func TestCacheLayout(t *testing.T) {
	assert.Equal(t, "a.example.test", certCacheKey("a.example.test", ECDSAP256))
	assert.Equal(t, "a.example.test", certCacheKey("a.example.test", ECDSAP384))
	assert.Equal(t, "a.example.test+rsa", certCacheKey("a.example.test", RSA2048))
	assert.Equal(t, "a.example.test+token", tokenCertCacheKey("a.example.test"))
	assert.Equal(t, "abc+http-01", httpTokenCacheKey("/.well-known/acme-challenge/abc"))
	for kind, block := range map[tlstest.KeyType]string{tlstest.ECDSAP256: "EC", tlstest.RSA2048: "RSA"} {
		cert, data := cacheEntry(t, "a.example.test", kind)
		assert.True(t, strings.HasPrefix(string(data), "-----BEGIN "+block+" PRIVATE KEY-----"))
		back, err := decodeCached(data)
		require.NoError(t, err)
		assert.Equal(t, cert.Certificate, back.Certificate)
		assert.True(t, cert.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }).Equal(back.PrivateKey))

		// autocert accepts it: its Manager serves it without a CA.
		cache := autocert.DirCache(t.TempDir())
		key := "a.example.test"
		hello := &tls.ClientHelloInfo{ServerName: key, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
		if kind == tlstest.RSA2048 {
			key, hello.CipherSuites = key+"+rsa", []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}
		require.NoError(t, cache.Put(t.Context(), key, data))
		served, err := (&autocert.Manager{Cache: cache, Prompt: autocert.AcceptTOS}).GetCertificate(hello)
		require.NoError(t, err)
		assert.Equal(t, cert.Certificate, served.Certificate)
	}
}

func TestDecodeCached(t *testing.T) {
	_, whole := cacheEntry(t, "a.example.test", tlstest.ECDSAP256)
	for _, data := range []string{"", "nonsense", string(whole[:50]), string(whole[:len(whole)-20]), string(whole) + "tail"} {
		_, err := decodeCached([]byte(data))
		assert.ErrorIs(t, err, errUnreadable)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(func() any { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k }())
	require.NoError(t, err)
	_, err = decodeKey(pemBlock("PRIVATE KEY", pkcs8))
	require.NoError(t, err)
	_, err = decodeKey(pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k }())))
	require.NoError(t, err)
}

func FuzzDecodeCached(f *testing.F) {
	needs.Corpus(f)
	_, whole := cacheEntry(f, "a.example.test", tlstest.ECDSAP256)
	f.Add(whole)
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cert, err := decodeCached(data)
		if err == nil && (cert.Leaf == nil || cert.PrivateKey == nil || len(cert.Certificate) == 0) {
			t.Fatal("half an entry")
		}
	})
}

func TestIsToken(t *testing.T) {
	assert.True(t, isToken("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"))
	for _, s := range []string{"", "short", "../../../../../../../etc/passwd", strings.Repeat("a", 257), strings.Repeat("a", 30) + "%"} {
		assert.False(t, isToken(s), s)
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestIdentifier(t *testing.T) {
	for in, want := range map[string]string{"*.Example.test": "*.example.test", "2001:DB8::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1", "a.example.test": "a.example.test"} {
		got, err := identifier(in, true)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, in := range []string{"*.test", "*", "*.*.example.test", "a.*.example.test", "fe80::1%eth0", "*.192.0.2.1"} {
		_, err := identifier(in, true)
		require.ErrorIs(t, err, certmanager.ErrInvalid, in)
	}
	_, err := identifier("*.example.test", false)
	require.ErrorContains(t, err, "DNSPersist or DNS")
	assert.Equal(t, "1.2.0.192.in-addr.arpa", testName("192.0.2.1").sni())
	assert.Equal(t, "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", testName("2001:db8::1").sni())
	assert.Equal(t, "_.example.test", testName("*.example.test").file())
	assert.Equal(t, "2001-db8--1", testName("2001:db8::1").file())
}

func TestCheckPersist(t *testing.T) {
	const account = "https://ca.test/account/1"
	now := time.Unix(1_800_000_000, 0)
	end := now.Add(time.Hour)
	good := "ca.test; accounturi=" + account
	check := func(wildcard bool, values ...string) (time.Time, error) {
		return checkPersist(values, []string{"ca.test"}, account, wildcard, now)
	}
	for _, values := range [][]string{{good}, {"other.test; accounturi=x", good}, {"ca.test; accounturi=x", good}, {good + "; policy=Wildcard; unknown=1"}, {"ca.test;ACCOUNTURI=" + account}} {
		until, err := check(false, values...)
		require.NoError(t, err, values)
		assert.Zero(t, until)
	}
	until, err := check(true, good+fmt.Sprintf("; policy=wildcard; persistUntil=%d", end.Unix()))
	require.NoError(t, err)
	assert.True(t, until.Equal(end))
	for want, value := range map[string]string{
		"missing":            "v=spf1 -all",
		"another account":    "ca.test; accounturi=https://ca.test/account/2",
		"no accounturi":      "ca.test; policy=wildcard",
		"no policy=wildcard": good,
		"ended on":           good + fmt.Sprintf("; policy=wildcard; persistUntil=%d", now.Unix()),
		"not a number":       good + "; persistUntil=tomorrow",
		"of the form":        good + ";",
		"twice":              good + "; accounturi=" + account,
		"has a space":        good + "; policy=wild card",
	} {
		_, err := check(true, value)
		require.ErrorContains(t, err, want)
	}
	_, err = check(true)
	require.ErrorContains(t, err, "missing")
}

func testName(text string) *name { return &name{text: text} }
