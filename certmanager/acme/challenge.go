package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
)

const http01Path = "/.well-known/acme-challenge/"

// tokens are the answers to the challenges that are open on this machine. Those of
// other machines are in the cache, if it is shared.
type tokens struct {
	mu    sync.Mutex
	certs map[string]*tls.Certificate // by name
	http  map[string]string           // by URL path
}

// challenges are the kinds of challenge that can be answered for a name, the one that worked last
// first.
func (s *state) challenges(n *name) []string {
	var kinds []string
	if _, isAddr := n.addr(); !isAddr {
		if s.o.DNSPersist {
			kinds = append(kinds, acme.ChallengeTypeDNSPersist01)
		}
		if s.o.DNS != nil {
			kinds = append(kinds, acme.ChallengeTypeDNS01)
		}
	}
	if len(kinds) == 0 {
		kinds = []string{acme.ChallengeTypeTLSALPN01}
		if s.http01.Load() > 0 {
			kinds = append(kinds, acme.ChallengeTypeHTTP01)
		}
	}
	if slices.Contains(kinds, n.last) {
		kinds = slices.Concat([]string{n.last}, slices.DeleteFunc(kinds, func(k string) bool { return k == n.last }))
	}
	if validation := (*validationError)(nil); errors.As(n.err, &validation) && kinds[0] != acme.ChallengeTypeDNSPersist01 {
		// One at a time from now on: each costs one of the few failures that CAs allow in an hour.
		return kinds[n.failures%len(kinds):][:1]
	}
	return kinds
}

// present makes the answer to a challenge known, until remove.
func (s *state) present(ctx context.Context, challenge acme.Challenge, n *name) (remove func(), err error) {
	var key string
	var data []byte
	t := &s.tokens
	switch challenge.Type {
	case acme.ChallengeTypeDNSPersist01:
		return func() {}, nil
	case acme.ChallengeTypeDNS01:
		return s.presentDNS(ctx, challenge, n)
	case acme.ChallengeTypeTLSALPN01:
		cert, err := acmez.TLSALPN01ChallengeCert(challenge)
		if err != nil {
			return nil, err
		}
		if data, err = encodeCached(cert); err != nil {
			return nil, err
		}
		key = tokenCertCacheKey(n.sni())
		t.mu.Lock()
		t.certs[n.sni()] = cert
		t.mu.Unlock()
	default:
		key, data = httpTokenCacheKey(challenge.HTTP01ResourcePath()), []byte(challenge.KeyAuthorization)
		t.mu.Lock()
		t.http[challenge.HTTP01ResourcePath()] = challenge.KeyAuthorization
		t.mu.Unlock()
	}
	if s.shared() {
		if err := s.put(ctx, key, data); err != nil {
			s.emit(certmanager.CacheFailed, n.text, err) // no other machine can answer
		}
	}
	return func() {
		t.mu.Lock()
		delete(t.certs, n.sni())
		delete(t.http, challenge.HTTP01ResourcePath())
		t.mu.Unlock()
		if s.shared() {
			_ = s.remove(ctx, key) // it is of no use to anyone, and does no harm
		}
	}, nil
}

var errNoChallenge = errors.New("no such challenge is open")

// answerTLS is the answer to a TLS-ALPN-01 challenge, of this machine or of another.
func (s *state) answerTLS(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, err := normalName(hello.ServerName)
	if err != nil {
		return nil, err
	}
	s.tokens.mu.Lock()
	cert := s.tokens.certs[name]
	s.tokens.mu.Unlock()
	ctx := contextOf(hello)
	switch {
	case cert != nil:
		return cert, nil
	case !s.shared() || !s.owns(ctx, name):
		return nil, errNoChallenge
	}
	data, err := s.get(ctx, tokenCertCacheKey(name))
	if err != nil {
		return nil, errNoChallenge
	}
	return decodeCached(data)
}

// answerHTTP is the answer to an HTTP-01 challenge. A call with an empty path says that such
// challenges are answered from now on.
func (s *state) answerHTTP(_, urlPath string) (body string, ok bool) {
	if urlPath == "" {
		s.http01.Add(1)
		return "", false
	}
	s.tokens.mu.Lock()
	body, ok = s.tokens.http[urlPath]
	s.tokens.mu.Unlock()
	token, known := strings.CutPrefix(urlPath, http01Path)
	if ok || !known || !s.shared() || !isToken(token) {
		return body, ok
	}
	data, err := s.get(s.ctx, httpTokenCacheKey(urlPath))
	return string(data), err == nil
}

// isToken says whether a string could be a token, RFC 8555 section 8.1: 128 bits and more
// in base64url. All else does not get as far as the cache.
func isToken(s string) bool {
	const least, most = 22, 256
	if len(s) < least || len(s) > most {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// contextOf is the context of a handshake. A hello that crypto/tls did not make has none.
func contextOf(hello *tls.ClientHelloInfo) context.Context {
	if ctx := hello.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

// prove answers a challenge and waits for the CA's judgement.
func (s *state) prove(ctx context.Context, c *client, authorization acme.Authorization, n *name, kind string) error {
	i := slices.IndexFunc(authorization.Challenges, func(c acme.Challenge) bool { return c.Type == kind })
	if i < 0 {
		return &validationError{challenge: kind, err: errors.New("the CA does not offer it")}
	}
	challenge := authorization.Challenges[i]
	remove, err := s.present(ctx, challenge, n)
	if err != nil {
		return &validationError{challenge: kind, err: err}
	}
	defer remove()
	err = poll(ctx, func(ctx context.Context) (bool, error) {
		if challenge.Status == acme.StatusProcessing { // an earlier attempt has asked for it
			return true, nil
		}
		_, err := call(ctx, "challenge", func(ctx context.Context) (acme.Challenge, error) {
			return c.InitiateChallenge(ctx, c.account, challenge)
		})
		return err == nil, err
	})
	if err != nil {
		return err
	}
	return poll(ctx, func(ctx context.Context) (bool, error) {
		now, err := c.authorization(ctx, authorization.Location)
		if err != nil {
			return false, err
		}
		return verdict(now, n, kind)
	})
}

// verdict says whether a CA has decided about an authorization, with the reason if it refused.
func verdict(authorization acme.Authorization, n *name, kind string) (decided bool, err error) {
	switch authorization.Status {
	case acme.StatusValid:
		return true, nil
	case acme.StatusPending, acme.StatusProcessing:
		return false, nil
	}
	var errs []error
	hint := ""
	for _, c := range authorization.Challenges {
		if c.Error != nil {
			errs = append(errs, errors.New(describe(*c.Error)))
			hint = reachable(*c.Error, kind, n)
		}
	}
	if len(errs) == 0 {
		errs = []error{fmt.Errorf("the CA calls the authorization %q, and says no reason", authorization.Status)}
	}
	return false, &validationError{challenge: kind, err: errors.Join(errs...), hint: hint}
}
