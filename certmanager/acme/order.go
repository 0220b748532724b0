package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// order obtains a new certificate with a new key: from the CA that issued the last, or from the
// first other CA that issues one. A CA that hangs leaves time for the next ones. A CA whose
// Retry-After has not passed is not asked.
func (s *state) order(ctx context.Context, n *name) (*tls.Certificate, error) {
	all := putFirst(s.cas, n.ca.Load())
	var errs []error
	after := maxRetryAfter // the shortest of the CAs
	for i, ca := range all {
		if left := clock.Until(n.retryAt[ca]); left > 0 {
			errs = append(errs, fmt.Errorf("%s: is asked again %s, as its Retry-After said", ca.host, n.retryAt[ca].Format(time.RFC3339)))
			after = min(after, left)
			continue
		}
		limited, cancel := part(ctx, len(all)-i)
		cert, err := s.orderFrom(limited, ca, n)
		cancel()
		if err == nil {
			n.ca.Store(ca)
			return cert, nil
		}
		wait := min(retryAfterOf(err), maxRetryAfter)
		after = min(after, wait)
		if len(all) > 1 {
			n.retryAt[ca] = clock.Now().Add(wait)
			err = fmt.Errorf("%s: %w", ca.host, err)
		}
		if errs = append(errs, err); ctx.Err() != nil {
			if i+1 < len(all) {
				after = 0 // the others were not asked
			}
			break
		}
	}
	return nil, &orderError{errors.Join(errs...), after}
}

// putFirst returns a list with one of its elements moved to the front.
func putFirst[T comparable](all []T, one T) []T {
	i := slices.Index(all, one)
	if i < 0 {
		return all
	}
	return slices.Concat(all[i:i+1], all[:i], all[i+1:])
}

// orderFrom orders from one CA, and registers again if the CA no longer knows the account.
func (s *state) orderFrom(ctx context.Context, ca *ca, n *name) (*tls.Certificate, error) {
	for again := false; ; again = true {
		c, err := ca.connect(ctx, true)
		if err != nil {
			return nil, err
		}
		cert, err := s.orderAt(ctx, c, n)
		if again || !isProblem(err, acme.ProblemTypeAccountDoesNotExist) {
			return cert, err
		}
		s.warn(n.text, fmt.Errorf("the CA no longer knows the account; registering again: %w", err))
		ca.forget(c.account)
	}
}

// orderAt continues an order that an earlier attempt has left. Otherwise it tries one kind of
// challenge after the other, each with its own order, since a failed challenge fails its order. The
// last successful kind is first.
func (s *state) orderAt(ctx context.Context, c *client, n *name) (*tls.Certificate, error) {
	if u := s.unfinished(ctx, c, n); u != nil {
		if cert, err := s.complete(ctx, c, n, u); err == nil || ctx.Err() != nil {
			return cert, err
		}
	}
	if _, ok := c.meta.Profiles[c.ca.Profile]; c.ca.Profile != "" && !ok {
		return nil, invalid("Profile: the CA has no %q, it has %q", c.ca.Profile, slices.Sorted(maps.Keys(c.meta.Profiles)))
	}
	var errs []error
	for _, kind := range s.challenges(n) {
		if err := s.prepare(ctx, c, n, kind); err != nil {
			errs = append(errs, err)
			continue
		}
		u, err := s.newOrder(ctx, c, n, kind)
		if err != nil {
			errs = append(errs, err)
			break
		}
		cert, err := s.complete(ctx, c, n, u)
		if err == nil {
			return cert, nil
		}
		errs = append(errs, err)
		if refused := (*validationError)(nil); !errors.As(err, &refused) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// prepare does what is possible before an order, and may return an error that makes the order
// pointless.
func (s *state) prepare(ctx context.Context, c *client, n *name, kind string) error {
	switch kind {
	case acme.ChallengeTypeDNSPersist01:
		return s.preparePersist(ctx, c, n)
	case acme.ChallengeTypeDNS01:
		return s.removeNoted(ctx, n)
	}
	return nil
}

// newOrder makes an order that replaces the last certificate of a name or, if the CA refuses that,
// for example because another machine has replaced it, an order that replaces none.
func (s *state) newOrder(ctx context.Context, c *client, n *name, kind string) (*unfinished, error) {
	wanted := acme.Order{Identifiers: []acme.Identifier{n.identifier()}, Profile: c.ca.Profile}
	if n.ca.Load() == c.ca { // which issued the replaced certificate
		wanted.Replaces = n.info.UniqueIdentifier
	}
	counts := wanted.Replaces == "" && s.serving(n) == nil // renewals do not
	if counts {
		if err := c.ca.awaitOrder(ctx); err != nil {
			return nil, errTooMany
		}
	}
	order, err := request(ctx, c, "order", c.NewOrder, wanted)
	var p acme.Problem
	var refused *refusal
	if errors.As(err, &refused) && !refused.lost && counts {
		c.ca.unmade.Add(1)
	}
	switch {
	case wanted.Replaces != "" && errors.As(err, &p) && (isInvalid(err) || p.Status == http.StatusInternalServerError):
		n.info.UniqueIdentifier = ""
		return s.newOrder(ctx, c, n, kind)
	case refused != nil && refused.lost:
		return nil, fmt.Errorf("%w: %w", errOrderLost, err)
	case err != nil:
		return nil, err
	case order.Location == "":
		return nil, fmt.Errorf("%w: order: the CA did not say its URL", certmanager.ErrInvalid)
	}
	return s.begin(ctx, c, n, order.Location, kind)
}
