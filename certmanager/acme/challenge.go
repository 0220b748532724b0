package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"regexp"
	"strings"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
)

const http01Path = "/.well-known/acme-challenge/"

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
	if last := n.kind.Load(); last != nil {
		kinds = putFirst(kinds, *last)
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
	default:
		key, data = httpTokenCacheKey(challenge.HTTP01ResourcePath()), []byte(challenge.KeyAuthorization)
	}
	s.answers.Store(key, data)
	if s.shared() {
		if err := s.put(ctx, key, data); err != nil {
			s.emit(certmanager.CacheFailed, n.text, err) // no other machine can answer
		}
	}
	return func() {
		s.answers.Delete(key)
		if s.shared() {
			_ = s.remove(ctx, key) // it is of no use to anyone, and does no harm
		}
	}, nil
}

var errNoChallenge = errors.New("no such challenge is open")

// answer is the answer to a challenge, of this machine, or of another if that may be.
func (s *state) answer(ctx context.Context, key string, other func() bool) ([]byte, error) {
	if data, ok := s.answers.Load(key); ok {
		return data.([]byte), nil
	}
	if s.shared() && other() {
		if data, err := s.get(ctx, key); err == nil {
			return data, nil
		}
	}
	return nil, errNoChallenge
}

// answerTLS is the answer to a TLS-ALPN-01 challenge.
func (s *state) answerTLS(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, err := normalName(hello.ServerName)
	if err != nil {
		return nil, err
	}
	ctx := contextOf(hello)
	data, err := s.answer(ctx, tokenCertCacheKey(name), func() bool { return s.owns(ctx, name) })
	if err != nil {
		return nil, err
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
	last, ok := strings.CutPrefix(urlPath, http01Path)
	if !ok {
		return "", false
	}
	data, err := s.answer(s.ctx, httpTokenCacheKey(urlPath), func() bool { return token.MatchString(last) })
	return string(data), err == nil
}

// token is what a token can be, RFC 8555 section 8.1: 128 bits and more in base64url. All else does
// not get as far as the cache.
var token = regexp.MustCompile(`^[A-Za-z0-9_-]{22,256}$`)

// contextOf is the context of a handshake. A hello that crypto/tls did not make has none.
func contextOf(hello *tls.ClientHelloInfo) context.Context {
	if ctx := hello.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
