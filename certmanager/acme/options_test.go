package acme

import (
	"context"
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
)

// The first attempt tries all kinds of challenge. After a failed validation each tries one, in
// turn.
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
	}
	for _, err := range []error{context.DeadlineExceeded, problem(429, "rateLimited"), problem(503, ""), problem(403, "orderNotReady"), &refusal{err: xacme.Problem{Status: 503}}} {
		assert.False(t, isInvalid(err), "%v", err)
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

func TestOptions(t *testing.T) {
	for want, source := range map[string]*Source{
		"both empty": {},
		"any name":   {HostPolicy: func(context.Context, string) error { return nil }},
		"wildcard":   {Domains: []string{"*.example.test"}},
		"negative":   {Domains: []string{"a.example.test"}, RenewBefore: -1},
		"Key 7":      {Domains: []string{"a.example.test"}, Key: 7},
		"stagging":   {Domains: []string{"a.example.test"}, Directory: "stagging"},
		"https URL":  {Domains: []string{"a.example.test"}, Directory: "http://ca.test/directory"},
		`"https://us:xxxxx@ca.test/" has a user name or password`: {Domains: []string{"a.example.test"}, Directory: "https://us:secret@ca.test/"},
		"ExternalAccount: KeyID or MACKey is empty":               {Domains: []string{"a.example.test"}, ExternalAccount: &ExternalAccount{KeyID: "kid"}},
		"not base64url": {Domains: []string{"a.example.test"}, Fallbacks: []CA{{Directory: "staging", ExternalAccount: &ExternalAccount{"kid", "a+b"}}}},
		"Listen:":       {Domains: []string{"a.example.test"}, Cache: autocert.DirCache(t.TempDir()), Listen: "nowhere"},
	} {
		began := time.Now()
		_, err := certmanager.New(certmanager.Options{Source: source})
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "secret")
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

func TestToken(t *testing.T) {
	assert.True(t, token.MatchString("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"))
	for _, s := range []string{"", "short", "../../../../../../../etc/passwd", strings.Repeat("a", 257), strings.Repeat("a", 30) + "%"} {
		assert.False(t, token.MatchString(s), s)
	}
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
		"missing":             "v=spf1 -all",
		"another account":     "ca.test; accounturi=https://ca.test/account/2",
		`another account, ""`: "ca.test; policy=wildcard",
		"no policy=wildcard":  good,
		"ended on":            good + fmt.Sprintf("; policy=wildcard; persistUntil=%d", now.Unix()),
	} {
		_, err := check(true, value)
		require.ErrorContains(t, err, want)
	}
	for _, malformed := range []string{"; persistUntil=tomorrow", "; persistUntil=", ";", "; accounturi=" + account, "; policy=wild card"} {
		_, err := check(true, good+malformed)
		require.ErrorContains(t, err, "is malformed", malformed)
	}
	_, err = check(true)
	require.ErrorContains(t, err, "missing")
}

func TestFallbacksAreChecked(t *testing.T) {
	for want, fallbacks := range map[string][]CA{
		`Fallbacks[1]: invalid certificate material: acme.Source.Directory: "stagging"`: {{Directory: "staging"}, {Directory: "stagging"}},
		"is there already": {{Directory: "staging"}, {Directory: "https://acme-staging-v02.api.letsencrypt.org/directory"}},
		"v02.api.letsencrypt.org/directory is there already": {{}},
	} {
		_, err := (&Source{Domains: []string{"a.example.test"}, Fallbacks: fallbacks}).ready()
		require.ErrorContains(t, err, want)
	}
}
