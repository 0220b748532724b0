package acme

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/ergotls/ergotls/certmanager"
	"github.com/ergotls/ergotls/internal/clock"
)

// finishTime is how long an order may be continued.
const finishTime = 20 * time.Minute

// unfinished is an order that the CA has not decided about. It is stored in the cache, so that a
// restarted program, or one whose StartTimeout has passed, can continue it.
type unfinished struct {
	URL   string
	Kind  string    // of challenge
	Key   string    // of the certificate
	Until time.Time // the order is not continued after that
}

func (c *ca) orderKey(n *name) string { return c.certKey(n) + "+order" }

// begin stores a new order.
func (s *state) begin(ctx context.Context, c *client, n *name, url, kind string) (*unfinished, error) {
	_, key, err := newKey(s.o.Key)
	if err != nil {
		return nil, err
	}
	u := &unfinished{URL: url, Kind: kind, Key: string(key), Until: clock.Now().Add(finishTime)}
	data, _ := json.Marshal(u) // it has only strings and a time
	if n.unlocked {
		return u, nil
	}
	if err := s.put(ctx, c.ca.orderKey(n), data); err != nil {
		s.emit(certmanager.CacheFailed, n.text, err)
	}
	return u, nil
}

// unfinished returns the order that an earlier attempt has left, nil if there is none to continue.
func (s *state) unfinished(ctx context.Context, c *client, n *name) *unfinished {
	if n.unlocked {
		return nil
	}
	u := &unfinished{}
	data, err := s.get(ctx, c.ca.orderKey(n))
	if err != nil || json.Unmarshal(data, u) != nil {
		return nil
	}
	left := clock.Until(u.Until)
	if left <= 0 || left > finishTime || !slices.Contains(s.challenges(n), u.Kind) {
		return nil
	}
	return u
}

// complete continues an order until its certificate is issued. If the CA has not decided when ctx
// ends, the order is left for the next attempt, possibly of another process.
func (s *state) complete(ctx context.Context, c *client, n *name, u *unfinished) (cert *tls.Certificate, err error) {
	defer func() {
		if !n.unlocked && (err == nil || ctx.Err() == nil || isInvalid(err)) {
			_ = s.remove(ctx, c.ca.orderKey(n)) // a remaining entry expires soon
		}
	}()
	key, err := decodeKey([]byte(u.Key))
	if err != nil {
		return nil, err
	}
	csr, err := acmez.NewCSR(key, []string{n.text}) // without a common name, which is limited to 64 bytes
	if err != nil {
		return nil, err
	}
	var chain []byte
	err = poll(ctx, func(ctx context.Context) (_ bool, err error) {
		chain, err = s.advance(ctx, c, n, u, csr.Raw)
		return chain != nil, err
	})
	if err != nil {
		return nil, err
	}
	cert, err = decodeCached(slices.Concat([]byte(u.Key), chain))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	err = s.check(cert, n.text)
	if errors.Is(err, certmanager.ErrExpired) {
		if s.serving(n) == nil { // it is loaded from the cache once the clock is right
			s.keepExpired(n, cert)
			err = errors.Join(err, s.store(ctx, n, c.ca, cert))
		}
		err = fmt.Errorf("%w; by the clock of this machine it is %s: if that is ahead, set it", err, clock.Now().Format(time.RFC3339))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	return cert, nil
}

// advance performs the next step for the state of an order, and returns the chain when it is
// issued. It is called again while there is none: a CA may still report an order as ready after it
// was asked to issue, and may not find the certificate at once.
func (s *state) advance(ctx context.Context, c *client, n *name, u *unfinished, csr []byte) (chain []byte, err error) {
	order, err := request(ctx, c, "order", c.GetOrder, acme.Order{Location: u.URL})
	if err != nil {
		return nil, err
	}
	switch order.Status {
	case acme.StatusPending:
		for _, url := range order.Authorizations {
			if err := s.authorize(ctx, c, n, url, u.Kind); err != nil {
				return nil, err
			}
		}
	case acme.StatusReady:
		n.kind.Store(&u.Kind)
		order, err = call(ctx, "finalize", func(ctx context.Context) (acme.Order, error) {
			return c.FinalizeOrder(ctx, c.account, order, csr)
		})
		if order.Status == acme.StatusProcessing {
			err = nil // acmez has not waited for it
		}
	case acme.StatusInvalid:
		err = errors.New("the CA calls it invalid and gives no reason")
		if order.Error != nil {
			err = errors.New(describe(*order.Error))
		}
		err = &validationError{"order", err}
	}
	if order.Status == acme.StatusValid {
		return download(ctx, c, order.Certificate)
	}
	return nil, err
}

// download fetches a chain. A CA may not find it at once.
func download(ctx context.Context, c *client, url string) ([]byte, error) {
	chains, err := request(ctx, c, "certificate", c.GetCertificateChain, url)
	var p acme.Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		return nil, errors.New(err.Error()) // temporary, unlike other 404s
	case err != nil:
		return nil, err
	}
	return chains[0].ChainPEM, nil
}

// errUndecided is the error of a CA that was too slow.
var errUndecided = errors.New("the CA did not decide")

// poll calls done until it returns true, at growing intervals, because validation takes a second or
// an hour, and not before the Retry-After of the last response has passed.
func poll(ctx context.Context, done func(context.Context) (bool, error)) error {
	var after time.Duration // set by transport
	asking := context.WithValue(ctx, pollKey{}, &after)
	for wait := 100 * time.Millisecond; ; wait = min(wait*3/2, 10*time.Second) {
		ok, err := done(asking)
		if ok || isInvalid(err) || errors.Is(err, errUndecided) {
			return err
		}
		sleep(ctx, max(wait, after))
		if ended := ctx.Err(); ended != nil {
			return errors.Join(err, fmt.Errorf("%w: %w", errUndecided, ended))
		}
	}
}
