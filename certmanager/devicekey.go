package certmanager

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// keyTimeout limits a signature. A key in memory takes milliseconds, one in a device tenths of a
// second.
const keyTimeout = 10 * time.Second

// reportKeyAgain is the minimum time between two reports about the same key.
const reportKeyAgain = time.Minute

var errKeyBusy = errors.New("the key has still not signed")

// deviceKey is a private key outside memory, for example in an HSM. A handshake waits at most
// keyTimeout for it. While a signature is overdue no other is requested, so that calls do not pile
// up in the device's library. Failures are reported while the certificate is in service.
type deviceKey struct {
	crypto.Signer
	overdue atomic.Int32                // calls that are overdue
	failed  atomic.Pointer[func(error)] // nil while the certificate is not in service
	told    atomic.Pointer[time.Time]   // when failed was called last; nil: never
}

// watchKey wraps a key that is not in memory in a deviceKey.
func watchKey(key crypto.PrivateKey) crypto.PrivateKey {
	switch key := key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey, *deviceKey:
		return key
	case crypto.Signer:
		return &deviceKey{Signer: key}
	}
	return key
}

// unwatched returns the key that was passed to watchKey.
func unwatched(key crypto.PrivateKey) crypto.PrivateKey {
	if k, ok := key.(*deviceKey); ok {
		return k.Signer
	}
	return key
}

// Sign implements crypto.Signer.
func (k *deviceKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.ask(func() ([]byte, error) { return k.Signer.Sign(rand, digest, opts) })
}

// SignMessage implements crypto.MessageSigner.
func (k *deviceKey) SignMessage(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.ask(func() ([]byte, error) { return crypto.SignMessage(k.Signer, rand, message, opts) })
}

func (k *deviceKey) ask(sign func() ([]byte, error)) (signature []byte, err error) {
	if k.overdue.Load() > 0 {
		return nil, errKeyBusy
	}
	done := start("the key", sign) // ends when the device answers
	timer := time.NewTimer(keyTimeout)
	defer timer.Stop()
	select {
	case r := <-done:
		signature, err = r.value, r.err
	case <-timer.C:
		k.overdue.Add(1)
		go func() {
			<-done
			k.overdue.Add(-1)
		}()
		err = fmt.Errorf("the key did not sign within %v", keyTimeout)
	}
	if err != nil {
		k.report(err)
	}
	return signature, err
}

func (k *deviceKey) report(err error) {
	failed, told, now := k.failed.Load(), k.told.Load(), time.Now()
	if failed != nil && (told == nil || now.Sub(*told) >= reportKeyAgain) && k.told.CompareAndSwap(told, &now) {
		(*failed)(err)
	}
}

// watchKeys enables reports for the keys in service. Other keys make no handshakes.
func (m *Manager) watchKeys(s *snapshot) {
	for _, c := range s.certs {
		key, ok := c.tls.PrivateKey.(*deviceKey)
		if !ok {
			continue
		}
		failed := func(err error) {
			info := NewCertificateInfo(c.tls.Leaf, c.origin)
			err = c.wrap(fmt.Errorf("handshakes fail because its key does not sign: %w", err))
			m.emit(Event{Kind: Warning, Reason: "key", Certificate: &info, Err: err})
		}
		key.failed.Store(&failed)
	}
}
