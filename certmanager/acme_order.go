package certmanager

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/acme"
)

// acmeAccount is the account at the CA, made when it is first needed.
type acmeAccount struct {
	mu     sync.Mutex // held while the account is being made
	client *acme.Client
}

// client returns a client with an account.
func (s *acmeState) client(ctx context.Context) (*acme.Client, error) {
	s.account.mu.Lock()
	defer s.account.mu.Unlock()
	if s.account.client != nil {
		return s.account.client, nil
	}
	unlock, err := s.lock(ctx, accountCacheKey) // N machines, one account
	if err == nil {
		defer unlock()
	}
	key, err := s.accountKey(ctx)
	if err != nil {
		return nil, err
	}
	client := &acme.Client{Key: key, HTTPClient: s.http, DirectoryURL: s.o.Directory, UserAgent: "ergotls", RetryBackoff: retryRequest}
	account := &acme.Account{ExternalAccountBinding: s.o.ExternalAccount}
	if s.o.Email != "" {
		account.Contact = []string{"mailto:" + s.o.Email}
	}
	if _, err := client.Register(ctx, account, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("account: %w", err)
	}
	s.account.client = client
	return client, nil
}

// forget makes the next order register again, unless another has begun to.
func (s *acmeState) forget(client *acme.Client) {
	s.account.mu.Lock()
	defer s.account.mu.Unlock()
	if s.account.client == client {
		s.account.client = nil
	}
}

// accountKey returns the key in the cache, or a new one.
func (s *acmeState) accountKey(ctx context.Context) (crypto.Signer, error) {
	data, err := s.get(ctx, accountCacheKey)
	if isMiss(err) {
		data, err = s.get(ctx, legacyAccountCacheKey)
	}
	if err == nil {
		key, _, err := decodeKey(data)
		if err == nil {
			return key, nil
		}
		s.setAside(ctx, "account", accountCacheKey, data, err)
	} else if !isMiss(err) {
		s.emit(CacheFailed, "account", err)
	}
	key, err2 := newACMEKey(ECDSAP256)
	if err2 != nil {
		return nil, err2
	}
	if err != nil && !isMiss(err) {
		return key, nil // for now: the key in the cache may be read again later
	}
	if data, err2 = encodeKey(key); err2 == nil {
		err2 = s.put(ctx, accountCacheKey, data)
	}
	if err2 != nil {
		s.emit(CacheFailed, "account", err2)
	}
	return key, nil
}

// retryRequest repeats a request at once that had a stale nonce, and soon one that met a
// CA which stumbled. All else is for retryDelay, which knows how urgent it is.
func retryRequest(n int, _ *http.Request, response *http.Response) time.Duration {
	switch {
	case response.StatusCode == http.StatusBadRequest && n <= 20:
		return time.Duration(n) * 10 * time.Millisecond
	case response.StatusCode >= 500 && response.Header.Get("Retry-After") == "" && n <= 2:
		return time.Duration(n) * 500 * time.Millisecond
	}
	return -1
}

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
	s.emit(ACMEWarning, n.name, fmt.Errorf("the CA does not know the account any more; registering again: %w", err))
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
		order, err := s.authorize(ctx, client, n.name, kind)
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
func (s *acmeState) authorize(ctx context.Context, client *acme.Client, name, kind string) (*acme.Order, error) {
	var options []acme.OrderOption
	if s.o.Profile != "" {
		options = append(options, acme.WithOrderIssuanceProfile(acme.ProfileName(s.o.Profile)))
	}
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(name), options...)
	if err != nil {
		return nil, err
	}
	for _, url := range order.AuthzURLs {
		authorization, err := client.GetAuthorization(ctx, url)
		if err != nil {
			return nil, err
		}
		if authorization.Status == acme.StatusPending {
			if err := s.prove(ctx, client, authorization, name, kind); err != nil {
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
	if ahead := time.Until(cert.Leaf.NotBefore); ahead > 0 && ahead < time.Minute {
		sleep(ctx, ahead)
	}
	if err := s.check(cert, name); err != nil {
		return nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	return &cert, nil
}

// suggestion is an answer about renewal, and after how long to ask again.
type suggestion struct {
	acmeInfo
	again time.Duration
}

// renewalInfo asks the CA when a certificate is to be renewed (RFC 9773). The answer is
// empty where the CA offers no such information.
func (s *acmeState) renewalInfo(ctx context.Context, leaf *x509.Certificate) (suggestion, error) {
	var directory struct{ RenewalInfo string }
	if _, err := s.getJSON(ctx, s.o.Directory, &directory); err != nil {
		return suggestion{}, err
	}
	id := renewalID(leaf)
	if directory.RenewalInfo == "" || id == "" {
		return suggestion{again: maxRetryAfter}, nil
	}
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
	}
	header, err := s.getJSON(ctx, directory.RenewalInfo+"/"+id, &info)
	if err != nil {
		return suggestion{}, err
	}
	start, end := info.SuggestedWindow.Start, info.SuggestedWindow.End
	if !start.Before(end) {
		return suggestion{}, fmt.Errorf("%w: the CA's renewal window ends before it starts", ErrInvalid)
	}
	again := parseRetryAfter(header, time.Now())
	if again == 0 {
		again = 6 * time.Hour
	}
	return suggestion{acmeInfo{start: start, end: end}, again}, nil
}

func (s *acmeState) getJSON(ctx context.Context, url string, to any) (http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "ergotls")
	response, err := s.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return response.Header, json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(to)
}
