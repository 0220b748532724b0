package certmanager

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"sync"
	"time"
)

// rehearsalTimeout limits a rehearsed signature or handshake. Only a key outside memory, for
// example in an HSM, can come near it. The reload loop waits at most keyWait for such keys, so that
// they do not delay other changes: the certificate is put in service at the next attempt after its
// key has signed.
const (
	rehearsalTimeout = keyTimeout + time.Second
	keyWait          = 2 * time.Second
)

// rehearse checks everything that could make handshakes with the candidate fail. It does not check
// what previous already serves.
func (s *snapshot) rehearse(ctx context.Context, o *Options, previous *snapshot, now time.Time) error {
	compared := newComparison(s, previous, now)
	errs := append(compared.lost(), compared.check()...)
	s.regressions = compared.regressions()
	errs = append(errs, compared.tryKeys(ctx)...)
	errs = append(errs, s.tryECH(ctx))
	for _, name := range o.RequireNames {
		// The set in service may lack the name too, after an ACME certificate expired. That must not
		// block its replacement.
		if !s.covers(name, false) && (previous.generation == 0 || previous.covers(name, true)) {
			errs = append(errs, fmt.Errorf("%w: %s; the certificates for servers have %s", ErrNotCovered, name, s.served()))
		}
	}
	return errors.Join(errs...)
}

// tryKeys proves that keys that are not in service yet can sign.
func (k *comparison) tryKeys(ctx context.Context) (errs []error) {
	left := rehearsalTimeout // for all keys
	if k.previous.generation > 0 {
		left = keyWait
	}
	for _, c := range k.certs {
		if k.served[c] || c.proven.Load() {
			continue
		}
		began := time.Now()
		if err := c.tryKey(ctx, max(left, 10*time.Millisecond)); err != nil {
			errs = append(errs, c.wrap(fmt.Errorf("%w: its key does not sign: %w", ErrInvalid, err)))
		}
		if _, device := c.tls.PrivateKey.(*deviceKey); device {
			left -= time.Since(began)
		}
	}
	return errs
}

// tryKey waits at most wait for a signature. If that is not enough, a later call gets its result;
// no other signature is requested meanwhile.
func (c *certificate) tryKey(ctx context.Context, wait time.Duration) error {
	if !c.trying.CompareAndSwap(false, true) {
		return errKeyBusy
	}
	outcome := start(func() (any, error) {
		err := c.sign()
		c.proven.Store(err == nil)
		c.trying.Store(false)
		return nil, err
	})
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r := <-outcome:
		return r.err
	case <-timer.C:
		return fmt.Errorf("the key did not sign within %v", wait.Round(10*time.Millisecond))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sign signs a certificate request with the key; crypto/x509 verifies the signature.
func (c *certificate) sign() (err error) {
	defer recovered(c.origin, &err)
	var request x509.CertificateRequest
	if schemes := c.tls.SupportedSignatureAlgorithms; c.key == rsaKey && (schemes == nil || slices.Contains(schemes, tls.PSSWithSHA256)) {
		request.SignatureAlgorithm = x509.SHA256WithRSAPSS // TLS 1.3 signs with PSS
	}
	_, err = x509.CreateCertificateRequest(rand.Reader, &request, c.tls.PrivateKey)
	return err
}

// tryECH proves that servers can use the Encrypted Client Hello keys. With a key that crypto/tls
// cannot use, every client that sends the extension would fail, even without a real key (GREASE).
func (s *snapshot) tryECH(ctx context.Context) error {
	if s.names.fallback.none() {
		return nil // no server
	}
	for _, key := range s.in.material.all.ECHKeys {
		if err := s.tryHandshake(ctx, key.Config); err != nil {
			return fmt.Errorf("%w: Encrypted Client Hello key: rehearsed handshake: %w", ErrInvalid, err)
		}
	}
	return nil
}

// tryHandshake performs a handshake over net.Pipe without verification.
func (s *snapshot) tryHandshake(ctx context.Context, echConfig []byte) error {
	config, peer := newTLSConfig(), newTLSConfig()
	config.Certificates, config.EncryptedClientHelloKeys = []tls.Certificate{rehearsalCertificate()}, s.in.material.all.ECHKeys
	config.SessionTicketsDisabled = true // the client does not read them from the pipe
	peer.MinVersion, peer.ServerName, peer.InsecureSkipVerify = tls.VersionTLS13, "rehearsal.invalid", true
	peer.EncryptedClientHelloConfigList = append(binary.BigEndian.AppendUint16(nil, uint16(len(echConfig))), echConfig...)

	done := make(chan error, 2)
	end := func(conn *tls.Conn) {
		defer conn.NetConn().Close() // makes the other end fail, if it has not ended
		// Both ends may write at once if one fails, and a pipe has no buffer.
		_ = conn.SetDeadline(time.Now().Add(rehearsalTimeout))
		done <- conn.HandshakeContext(ctx)
	}
	serverEnd, clientEnd := net.Pipe()
	go end(tls.Server(serverEnd, config))
	go end(tls.Client(clientEnd, peer))
	return cmp.Or(<-done, <-done)
}

// rehearsalCertificate is a certificate for a handshake without verification.
var rehearsalCertificate = sync.OnceValue(func() tls.Certificate {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // never: crypto/rand does not fail
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		panic(err) // never: the template is valid
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})
