//go:build cgo

package main

import (
	"context"
	"crypto"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ThalesGroup/crypto11"
)

// token is a PKCS #11 token, a certmanager.KeyStore. Its keys are found by their public keys.
type token struct {
	config crypto11.Config

	mu   sync.Mutex // guards open
	open *crypto11.Context
}

// Signer implements certmanager.KeyStore. It does not ask the token: the manager asks
// the key for a signature before the certificate is in service.
func (t *token) Signer(_ context.Context, public crypto.PublicKey) (crypto.Signer, error) {
	return &key{token: t, public: public}, nil
}

// context returns the open token. failed is what was returned before and does not work, because the
// token was taken out for example.
func (t *token) context(failed *crypto11.Context) (*crypto11.Context, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open != nil && t.open != failed {
		return t.open, nil
	}
	if t.open != nil {
		// The library must be finalized first: otherwise it still has the token that was taken out. Close
		// does that, but waits for signatures, which may hang.
		closed := make(chan struct{})
		go func(open *crypto11.Context) { open.Close(); close(closed) }(t.open)
		select {
		case <-closed:
		case <-time.After(time.Second):
		}
		t.open = nil
	}
	config := t.config
	var err error
	t.open, err = crypto11.Configure(&config)
	return t.open, err
}

// close waits for signatures that are under way.
func (t *token) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open != nil {
		t.open.Close()
		t.open = nil
	}
}

// key is a private key in a token.
type key struct {
	token  *token
	public crypto.PublicKey

	mu     sync.Mutex // guards what follows
	signer crypto11.Signer
	of     *crypto11.Context
}

// Public implements crypto.Signer.
func (k *key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. If it fails it opens the token again, once.
func (k *key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	signer, of, err := k.find(nil)
	if err == nil {
		var signature []byte
		if signature, err = signer.Sign(rand, digest, opts); err == nil {
			return signature, nil
		}
	}
	if signer, _, err = k.find(of); err != nil {
		return nil, err
	}
	return signer.Sign(rand, digest, opts)
}

func (k *key) find(failed *crypto11.Context) (crypto11.Signer, *crypto11.Context, error) {
	open, err := k.token.context(failed)
	if err != nil {
		return nil, nil, fmt.Errorf("token %s: %w", k.token.config.TokenLabel, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer != nil && k.of == open {
		return k.signer, open, nil
	}
	all, err := open.FindAllKeyPairs()
	for _, signer := range all {
		if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && public.Equal(k.public) {
			k.signer, k.of = signer, open
			return signer, open, nil
		}
	}
	return nil, open, fmt.Errorf("token %s: it has no key of this certificate: %w", k.token.config.TokenLabel, err)
}
