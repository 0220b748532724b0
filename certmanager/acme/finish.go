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

// finishTime is how long an order is gone on with.
const finishTime = 20 * time.Minute

// unfinished is an order that the CA has not decided about. It is in the cache: a program that is
// started again, or whose StartTimeout is over, goes on with it.
type unfinished struct {
	URL   string
	Kind  string    // of challenge
	Key   string    // of the certificate
	Until time.Time // it is not gone on with after that

	order acme.Order
}

func (c *ca) orderKey(n *name) string { return c.certKey(n) + "+order" }

// begin notes a new order.
func (s *state) begin(ctx context.Context, c *client, n *name, order acme.Order, kind string) (*unfinished, error) {
	key, err := newKey(s.o.Key)
	if err != nil {
		return nil, err
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	u := &unfinished{URL: order.Location, Kind: kind, Key: string(encoded), Until: clock.Now().Add(finishTime), order: order}
	data, err := json.Marshal(u)
	if err != nil {
		return nil, err
	}
	if n.unlocked {
		return u, nil
	}
	if err := s.put(ctx, c.ca.orderKey(n), data); err != nil {
		s.emit(certmanager.CacheFailed, n.text, err)
	}
	return u, nil
}

// unfinished is the order that an earlier attempt has left, nil if there is none to go on with.
func (s *state) unfinished(ctx context.Context, c *client, n *name) *unfinished {
	if n.unlocked {
		return nil
	}
	u := &unfinished{}
	data, err := s.get(ctx, c.ca.orderKey(n))
	if err != nil || json.Unmarshal(data, u) != nil {
		return nil
	}
	u.order.Location = u.URL
	left := clock.Until(u.Until)
	if left <= 0 || left > finishTime || !slices.Contains(s.challenges(n), u.Kind) {
		return nil
	}
	if err := poll(ctx, func(ctx context.Context) (bool, error) { err := u.look(ctx, c); return err == nil, err }); err != nil {
		return nil
	}
	return u
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

// finish gets the certificate of an order that is authorized. It is looked at again as long as ctx
// allows: a CA may still call it ready after it was asked to make the certificate, and may not find
// the certificate at once.
func (s *state) finish(ctx context.Context, c *client, n *name, u *unfinished) (*tls.Certificate, error) {
	key, err := decodeKey([]byte(u.Key))
	if err != nil {
		return nil, err
	}
	csr, err := acmez.NewCSR(key, []string{n.text}) // without a common name, which has only 64 bytes
	if err != nil {
		return nil, err
	}
	var chain []byte
	err = poll(ctx, func(ctx context.Context) (bool, error) {
		if err := u.look(ctx, c); err != nil {
			return false, err
		}
		if u.order.Status == acme.StatusReady {
			if err := u.finalize(ctx, c, csr.Raw); err != nil {
				return false, err
			}
		}
		if u.order.Status != acme.StatusValid {
			return false, nil
		}
		var err error
		chain, err = download(ctx, c, u.order.Certificate)
		return chain != nil, err
	})
	if err != nil {
		return nil, err
	}
	cert, err := decodeCached(slices.Concat([]byte(u.Key), chain))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	err = s.check(cert, n.text)
	if errors.Is(err, certmanager.ErrExpired) {
		if s.serving(n) == nil { // it is found in the cache when the clock has been set
			err = errors.Join(err, s.store(ctx, n, c.ca, cert))
		}
		err = fmt.Errorf("%w; by the clock of this machine it is %s: if that is ahead, set it", err, clock.Now().Format(time.RFC3339))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	return cert, nil
}

// look asks for the state of the order.
func (u *unfinished) look(ctx context.Context, c *client) error {
	order, err := call(ctx, "order", func(ctx context.Context) (acme.Order, error) { return c.GetOrder(ctx, c.account, u.order) })
	if err != nil {
		return err
	}
	u.order = order
	return failedOrder(order)
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

// finalize asks for the certificate.
func (u *unfinished) finalize(ctx context.Context, c *client, csr []byte) error {
	order, err := call(ctx, "finalize", func(ctx context.Context) (acme.Order, error) { return c.FinalizeOrder(ctx, c.account, u.order, csr) })
	if p := (acme.Problem{}); errors.As(err, &p) {
		return err
	}
	if u.order = order; order.Status == acme.StatusValid {
		return nil
	}
	return err // whatever the state: it is looked at again
}

// download gets a chain. A CA may not find it at once.
func download(ctx context.Context, c *client, url string) ([]byte, error) {
	chains, err := call(ctx, "certificate", func(ctx context.Context) ([]acme.Certificate, error) {
		return c.GetCertificateChain(ctx, c.account, url)
	})
	var p acme.Problem
	switch {
	case errors.As(err, &p) && p.Status == http.StatusNotFound:
		return nil, errors.New(err.Error()) // temporary, unlike other 404s
	case err != nil:
		return nil, err
	case len(chains) == 0 || len(chains[0].ChainPEM) == 0:
		return nil, fmt.Errorf("%w: the CA gave no certificate", certmanager.ErrInvalid)
	}
	return chains[0].ChainPEM, nil
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
