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
	all := putFirst(s.cas, n.ca.Load())
	var errs []error
	for i, ca := range all {
		limited, cancel := part(ctx, len(all)-i)
		cert, err := s.orderFrom(limited, ca, n)
		cancel()
		if err == nil {
			n.ca.Store(ca)
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

// putFirst returns a list with one of its elements moved to the front.
func putFirst[T comparable](all []T, one T) []T {
	i := slices.Index(all, one)
	if i < 0 {
		return all
	}
	return slices.Concat(all[i:i+1], all[:i], all[i+1:])
}

// orderFrom orders from one CA, registering again if it does not know the account any more.
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
		s.warn(n.text, fmt.Errorf("the CA does not know the account any more; registering again: %w", err))
		ca.forget(c.account)
	}
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
	for _, url := range u.order.Authorizations {
		if err := s.authorize(ctx, c, n, url, u.Kind); err != nil {
			return nil, err
		}
	}
	n.kind.Store(&u.Kind)
	return s.finish(ctx, c, n, u)
}

// prepare does what need not wait for an order, and may show that an order would be in vain.
func (s *state) prepare(ctx context.Context, c *client, n *name, kind string) error {
	switch kind {
	case acme.ChallengeTypeDNSPersist01:
		return s.preparePersist(ctx, c, n)
	case acme.ChallengeTypeDNS01:
		return s.removeRecords(ctx, n)
	}
	return nil
}

// newOrder makes an order that replaces the last certificate of a name, or where the CA will not
// have that, for example since another machine has replaced it, one that replaces none.
func (s *state) newOrder(ctx context.Context, c *client, n *name, kind string) (*unfinished, error) {
	wanted := acme.Order{Identifiers: []acme.Identifier{n.identifier()}, Profile: c.ca.Profile}
	if n.ca.Load() == c.ca { // which issued what is replaced
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

// authorize proves control of what an authorization is for: it answers the challenge, asks the CA to
// look, and waits for its decision.
func (s *state) authorize(ctx context.Context, c *client, n *name, url, kind string) error {
	var remove func() // set when the challenge can be answered
	defer func() {
		if remove != nil {
			remove()
		}
	}()
	asked := false
	return poll(ctx, func(ctx context.Context) (decided bool, err error) {
		authorization, err := call(ctx, "authorization", func(ctx context.Context) (acme.Authorization, error) {
			return c.GetAuthorization(ctx, c.account, url)
		})
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
		if challenge.Status != acme.StatusProcessing { // an earlier attempt has asked for it
			_, err = call(ctx, "challenge", func(ctx context.Context) (acme.Challenge, error) {
				return c.InitiateChallenge(ctx, c.account, challenge)
			})
		}
		asked = err == nil
		return false, err
	})
}

func failedOrder(order acme.Order) error {
	if order.Status != acme.StatusInvalid {
		return nil
	}
	if order.Error != nil {
		return &validationError{"order", errors.New(describe(*order.Error))}
	}
	return &validationError{"order", errors.New("the CA calls it invalid, and says no reason")}
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
	for _, c := range authorization.Challenges {
		if c.Error != nil {
			errs = append(errs, reachable(*c.Error, kind, n))
		}
	}
	if len(errs) == 0 {
		errs = []error{fmt.Errorf("the CA calls the authorization %q, and says no reason", authorization.Status)}
	}
	return false, &validationError{kind, errors.Join(errs...)}
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
