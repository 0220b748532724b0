package certmanager

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/acme"
)

// acmeAccount is the account at the CA, made when it is first needed.
type acmeAccount struct {
	mu      sync.Mutex // held while the account is being made
	client  *acme.Client
	unsaved atomic.Pointer[[]byte] // its key, which could not be stored yet
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
	web := &http.Client{Transport: replacing{s.http.Transport, key}, Timeout: s.http.Timeout}
	client := &acme.Client{Key: key, HTTPClient: web, DirectoryURL: s.o.Directory, UserAgent: "ergotls", RetryBackoff: retryRequest}
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
		if len(data) > 0 {
			s.account.unsaved.Store(&data)
		}
		s.emit(CacheFailed, "account", err2)
	}
	return key, nil
}

// saveAccount stores the key that could not be stored before, unless another machine has stored one meanwhile. It is
// called when a certificate could be.
func (s *acmeState) saveAccount(ctx context.Context) {
	data := s.account.unsaved.Swap(nil)
	if data == nil {
		return
	}
	_, err := s.get(ctx, accountCacheKey)
	if isMiss(err) {
		err = s.put(ctx, accountCacheKey, *data)
	}
	if err != nil {
		s.account.unsaved.CompareAndSwap(nil, data)
		s.emit(CacheFailed, "account", err)
	}
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
