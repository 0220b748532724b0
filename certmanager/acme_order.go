package certmanager

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/ergotls/ergotls/internal/clock"
)

// order gets a new certificate with a new key, registering again if the CA does not know
// the account any more.
func (s *acmeState) order(ctx context.Context, n *acmeName) (*tls.Certificate, error) {
	client, err := s.client(ctx)
	if err != nil {
		return nil, err
	}
	cert, err := s.orderWith(ctx, client, n)
	var problem *acme.Error
	if !errors.As(err, &problem) || problem.ProblemType != "urn:ietf:params:acme:error:accountDoesNotExist" {
		return cert, err
	}
	s.emit(Warning, n.name, fmt.Errorf("the CA does not know the account any more; registering again: %w", err))
	s.forget(client)
	if client, err = s.client(ctx); err != nil {
		return nil, err
	}
	return s.orderWith(ctx, client, n)
}

// orderWith tries one kind of challenge after the other, with an order each, since a failed
// challenge fails its order. The kind that worked last comes first.
func (s *acmeState) orderWith(ctx context.Context, client *acme.Client, n *acmeName) (*tls.Certificate, error) {
	kinds := []string{challengeTLSALPN01}
	if s.http01.Load() > 0 {
		kinds = append(kinds, challengeHTTP01)
	}
	if slices.Contains(kinds, n.last) {
		kinds = slices.Concat([]string{n.last}, slices.DeleteFunc(kinds, func(k string) bool { return k == n.last }))
	}
	var errs []error
	for _, kind := range kinds {
		order, err := s.authorize(ctx, client, n, kind)
		var refused *acme.AuthorizationError
		if errors.As(err, &refused) {
			errs = append(errs, fmt.Errorf("%s: %w", kind, err))
			continue
		}
		if err != nil {
			return nil, errors.Join(append(errs, err)...)
		}
		n.last = kind
		return s.finalize(ctx, client, order, n.name)
	}
	return nil, errors.Join(errs...)
}

// authorize makes an order and brings it to where it can be finalized.
func (s *acmeState) authorize(ctx context.Context, client *acme.Client, n *acmeName, kind string) (*acme.Order, error) {
	var options []acme.OrderOption
	if s.o.Profile != "" {
		if err := s.checkProfile(ctx, client); err != nil {
			return nil, err
		}
		options = append(options, acme.WithOrderIssuanceProfile(acme.ProfileName(s.o.Profile)))
	}
	order, err := s.newOrder(ctx, client, n, options...)
	if err != nil {
		return nil, err
	}
	for _, url := range order.AuthzURLs {
		authorization, err := client.GetAuthorization(ctx, url)
		if err != nil {
			return nil, err
		}
		if authorization.Status == acme.StatusPending {
			if err := s.prove(ctx, client, authorization, n.name, kind); err != nil {
				return nil, err
			}
		}
	}
	uri := order.URI
	err = poll(ctx, func() (bool, error) {
		if order, err = client.GetOrder(ctx, uri); err != nil {
			return false, err
		}
		if order.Status == acme.StatusInvalid {
			return false, &acme.OrderError{OrderURL: uri, Status: order.Status, Problem: order.Error}
		}
		return order.Status == acme.StatusReady || order.Status == acme.StatusValid, nil
	})
	return order, err
}

// checkProfile refuses a profile that the CA does not have, which package acme does with an error
// that cannot be told from those that pass.
func (s *acmeState) checkProfile(ctx context.Context, client *acme.Client) error {
	directory, err := client.Discover(ctx)
	if err != nil {
		return err
	}
	if _, ok := directory.Profiles[acme.ProfileName(s.o.Profile)]; !ok {
		return fmt.Errorf("%w: ACME.Profile: the CA has no %q, it has %q", ErrInvalid, s.o.Profile, slices.Sorted(maps.Keys(directory.Profiles)))
	}
	return nil
}

// prove answers a challenge and waits for the CA's judgement.
func (s *acmeState) prove(ctx context.Context, client *acme.Client, authorization *acme.Authorization, name, kind string) error {
	i := slices.IndexFunc(authorization.Challenges, func(c *acme.Challenge) bool { return c.Type == kind })
	if i < 0 {
		return &acme.AuthorizationError{URI: authorization.URI, Identifier: name, Errors: []error{fmt.Errorf("the CA does not offer %s", kind)}}
	}
	challenge := authorization.Challenges[i]
	remove, err := s.present(ctx, client, challenge, name)
	if err != nil {
		return err
	}
	defer remove()
	if _, err := client.Accept(ctx, challenge); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		authorization, err := client.GetAuthorization(ctx, authorization.URI)
		if err != nil {
			return false, err
		}
		switch authorization.Status {
		case acme.StatusValid:
			return true, nil
		case acme.StatusPending, acme.StatusProcessing:
			return false, nil
		}
		failed := &acme.AuthorizationError{URI: authorization.URI, Identifier: name}
		for _, c := range authorization.Challenges {
			if c.Error != nil {
				failed.Errors = append(failed.Errors, c.Error)
			}
		}
		return false, failed
	})
}

// poll asks until done says so, soon at first: validation takes a second or an hour.
func poll(ctx context.Context, done func() (bool, error)) error {
	for wait := 100 * time.Millisecond; ; wait = min(wait*3/2, 10*time.Second) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		sleep(ctx, wait)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the CA did not decide: %w", err)
		}
	}
}

// finalize gets the certificate of an order that is authorized.
func (s *acmeState) finalize(ctx context.Context, client *acme.Client, order *acme.Order, name string) (*tls.Certificate, error) {
	key, err := newACMEKey(s.o.Key)
	if err != nil {
		return nil, err
	}
	// Without a common name, which is no place for names any more and has only 64 bytes.
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := client.CreateCertFromOrder(ctx, order, csr, true)
	if err != nil {
		return nil, err
	}
	cert := tls.Certificate{Certificate: chain, PrivateKey: key}
	if cert.Leaf, err = x509.ParseCertificate(chain[0]); err != nil {
		return nil, fmt.Errorf("%w: the CA's certificate: %w", ErrInvalid, err)
	}
	// The CA's clock may be ahead of ours.
	if ahead := clock.Until(cert.Leaf.NotBefore); ahead > 0 && ahead < time.Minute {
		sleep(ctx, ahead)
	}
	if err := s.check(cert, name); err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	return &cert, nil
}
