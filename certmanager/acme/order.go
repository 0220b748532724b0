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
)

// order gets a new certificate with a new key: of the CA that issued the last, or of the first of
// the others that issues one. One that hangs leaves time for those after it.
func (s *state) order(ctx context.Context, n *name) (*tls.Certificate, error) {
	all := append([]*ca{n.ca}, slices.DeleteFunc(slices.Clone(s.cas), func(c *ca) bool { return c == n.ca })...)
	var errs []error
	for i, ca := range all {
		limited, cancel := part(ctx, len(all)-i)
		cert, err := s.orderFrom(limited, ca, n)
		cancel()
		if err == nil {
			s.mu.Lock()
			n.ca = ca
			s.mu.Unlock()
			return cert, nil
		}
		if len(all) > 1 {
			err = fmt.Errorf("%s: %w", ca.host, err)
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// orderFrom orders from one CA, registering again if it does not know the account any more.
func (s *state) orderFrom(ctx context.Context, ca *ca, n *name) (*tls.Certificate, error) {
	c, err := ca.connect(ctx, true)
	if err != nil {
		return nil, err
	}
	cert, err := s.orderAt(ctx, c, n)
	if !isProblem(err, acme.ProblemTypeAccountDoesNotExist) {
		return cert, err
	}
	s.warn(n.text, fmt.Errorf("the CA does not know the account any more; registering again: %w", err))
	ca.forget(c.account)
	if c, err = ca.connect(ctx, true); err != nil {
		return nil, err
	}
	return s.orderAt(ctx, c, n)
}

// orderAt goes on with an order that an earlier attempt has left. Else it tries one kind of
// challenge after the other, with an order each, since a failed challenge fails its order. The kind
// that worked last comes first.
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

// complete brings an order to its certificate. An order that the CA has not decided about when ctx
// ends is left for the next attempt, also of another process.
func (s *state) complete(ctx context.Context, c *client, n *name, u *unfinished) (cert *tls.Certificate, err error) {
	defer func() {
		if !n.unlocked && (err == nil || ctx.Err() == nil || !isTemporary(err)) {
			_ = s.remove(ctx, c.ca.orderKey(n)) // if it stays it ends soon
		}
	}()
	if err := s.authorize(ctx, c, n, u); err != nil {
		return nil, err
	}
	s.mu.Lock()
	n.last = u.Kind
	s.mu.Unlock()
	return s.finish(ctx, c, n, u)
}

// prepare does what need not wait for an order, and may show that an order would be in vain.
func (s *state) prepare(ctx context.Context, c *client, n *name, kind string) error {
	switch kind {
	case acme.ChallengeTypeDNSPersist01:
		return s.preparePersist(ctx, c, n)
	case acme.ChallengeTypeDNS01:
		return s.removeLeftOver(ctx, n)
	}
	return nil
}

// newOrder makes an order that replaces the last certificate of a name, or where the CA will not
// have that, for example since another machine has replaced it, one that replaces none.
func (s *state) newOrder(ctx context.Context, c *client, n *name, kind string) (*unfinished, error) {
	wanted := acme.Order{Identifiers: []acme.Identifier{n.identifier()}, Profile: c.ca.Profile}
	if n.ca == c.ca { // which issued what is replaced
		wanted.Replaces = n.info.UniqueIdentifier
	}
	do := func(ctx context.Context) (acme.Order, error) { return c.NewOrder(ctx, c.account, wanted) }
	order, err := call(ctx, "order", do)
	var p acme.Problem
	if wanted.Replaces != "" && errors.As(err, &p) && (isInvalid(err) || p.Status == http.StatusInternalServerError) {
		n.info.UniqueIdentifier, wanted.Replaces = "", ""
		order, err = call(ctx, "order", do)
	}
	var refused *refusal
	switch {
	case errors.As(err, &refused) && refused.lost:
		return nil, fmt.Errorf("%w: %w", errOrderLost, err)
	case err != nil:
		return nil, err
	case order.Location == "":
		return nil, fmt.Errorf("%w: order: the CA did not say its URL", certmanager.ErrInvalid)
	}
	return s.begin(ctx, c, n, order, kind)
}

// authorize proves control of what an order is for.
func (s *state) authorize(ctx context.Context, c *client, n *name, u *unfinished) error {
	for _, url := range u.order.Authorizations {
		var authorization acme.Authorization
		err := poll(ctx, func(ctx context.Context) (_ bool, err error) {
			authorization, err = c.authorization(ctx, url)
			return err == nil, err
		})
		decided := false
		if err == nil {
			decided, err = verdict(authorization, n, u.Kind)
		}
		if err == nil && !decided {
			err = s.prove(ctx, c, authorization, n, u.Kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func failedOrder(order acme.Order) error {
	if order.Status != acme.StatusInvalid {
		return nil
	}
	if order.Error != nil {
		return &validationError{challenge: "order", err: errors.New(describe(*order.Error))}
	}
	return &validationError{challenge: "order", err: errors.New("the CA calls it invalid, and says no reason")}
}

func (c *client) authorization(ctx context.Context, url string) (acme.Authorization, error) {
	return call(ctx, "authorization", func(ctx context.Context) (acme.Authorization, error) {
		return c.GetAuthorization(ctx, c.account, url)
	})
}

// poll asks until done says so, soon at first: validation takes a second or an hour. What is
// temporary is asked again, when the CA wants it.
func poll(ctx context.Context, done func(context.Context) (bool, error)) error {
	for wait := 100 * time.Millisecond; ; wait = min(wait*3/2, 10*time.Second) {
		ok, err := done(ctx)
		if ok || err != nil && !isTemporary(err) {
			return err
		}
		sleep(ctx, max(wait, retryAfterOf(err)))
		if ended := ctx.Err(); ended != nil {
			return errors.Join(err, fmt.Errorf("the CA did not decide: %w", ended))
		}
	}
}
