package acme

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
)

// challenges returns the kinds of challenge that can be answered for a name. The last successful
// one is first.
func (s *state) challenges(n *name) []string {
	var kinds []string
	if !isAddress(n.text) {
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
		// Only one from now on: each failure counts towards the few that CAs allow in an hour.
		return kinds[n.failures%len(kinds):][:1]
	}
	return kinds
}

// authorize proves control of the name of an authorization: it answers the challenge, asks the CA
// to validate, and waits for its decision.
func (s *state) authorize(ctx context.Context, c *client, n *name, url, kind string) error {
	var remove func() // set once the challenge can be answered
	defer func() {
		if remove != nil {
			remove()
		}
	}()
	asked := false
	return poll(ctx, func(ctx context.Context) (decided bool, err error) {
		authorization, err := request(ctx, c, "authorization", c.GetAuthorization, url)
		if err != nil {
			return false, err
		}
		if decided, err = verdict(authorization, n, kind); decided || err != nil || asked {
			return decided, err
		}
		i := slices.IndexFunc(authorization.Challenges, func(c acme.Challenge) bool { return c.Type == kind })
		if i < 0 {
			return false, &validationError{kind, errors.New("the CA does not offer it")}
		}
		challenge := authorization.Challenges[i]
		if remove == nil {
			if remove, err = s.present(ctx, challenge, n); err != nil {
				return false, &validationError{kind, err}
			}
		}
		if challenge.Status != acme.StatusProcessing { // else an earlier attempt has asked for validation
			_, err = request(ctx, c, "challenge", c.InitiateChallenge, challenge)
		}
		asked = err == nil
		return false, err
	})
}

// present makes the answer to a challenge available until remove is called.
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
			_ = s.remove(ctx, key) // a remaining entry is harmless
		}
	}, nil
}

// verdict reports whether a CA has decided about an authorization, and the error if it refused.
func verdict(authorization acme.Authorization, n *name, kind string) (decided bool, err error) {
	switch authorization.Status {
	case acme.StatusValid:
		return true, nil
	case acme.StatusPending, acme.StatusProcessing:
		return false, nil
	}
	var errs []error
	for _, c := range authorization.Challenges {
		if c.Error != nil {
			errs = append(errs, reachable(*c.Error, kind, n))
		}
	}
	if len(errs) == 0 {
		errs = []error{fmt.Errorf("the CA calls the authorization %q and gives no reason", authorization.Status)}
	}
	return false, &validationError{kind, errors.Join(errs...)}
}

// reachable adds to the error of a CA that could not connect what it must be able to reach.
func reachable(p acme.Problem, kind string, n *name) error {
	said := errors.New(describe(p))
	port := map[string]int{acme.ChallengeTypeTLSALPN01: 443, acme.ChallengeTypeHTTP01: 80}[kind]
	switch p.Type {
	case acme.ProblemTypeConnection, acme.ProblemTypeDNS, acme.ProblemTypeTLS, acme.ProblemTypeMalformed:
		if port > 0 {
			return fmt.Errorf("%w; the CA has to reach this program from the internet, on port %d of %s; to try it on a machine that it cannot reach, run make demo-acme", said, port, n.text)
		}
	}
	return said
}
