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

// rehearsalTimeout bounds a rehearsed signature or handshake. Only a key that is not in memory, in
// an HSM for example, can come near it. The reload loop waits for such keys no longer than keyWait,
// so that a change of something else does not wait for them: the certificate is put in service at
// the next try after its key has signed.
const (
	rehearsalTimeout = keyTimeout + time.Second
	keyWait          = 2 * time.Second
)

// rehearse checks everything that could make handshakes with the candidate fail. What
// previous served already is not tried again.
func (s *snapshot) rehearse(ctx context.Context, o *Options, previous *snapshot, now time.Time) error {
	compared := newComparison(s, previous, now)
	errs := append(compared.lost(), compared.check()...)
	s.regressions = compared.regressions()
	errs = append(errs, compared.tryKeys(ctx)...)
	errs = append(errs, s.tryECH(ctx))
	for _, name := range o.RequireNames {
		// What is in service may miss it too, where an ACME certificate ended: that must not
		// keep the next from taking its place.
		if !s.covers(name, false) && (previous.generation == 0 || previous.covers(name, true)) {
			errs = append(errs, fmt.Errorf("%w: %s; the certificates for servers have %s", ErrNotCovered, name, s.served()))
		}
	}
	return errors.Join(errs...)
}

// tryKeys proves that the keys sign which are not in service already.
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

// tryKey waits for a signature for no longer than wait; the next call finds what came of it. A key
// that did not answer is not asked again before it does.
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

// sign has the key sign a certificate request, whose signature crypto/x509 verifies.
func (c *certificate) sign() (err error) {
	defer recovered(c.origin, &err)
	var request x509.CertificateRequest
	if schemes := c.tls.SupportedSignatureAlgorithms; c.key == rsaKey && (schemes == nil || slices.Contains(schemes, tls.PSSWithSHA256)) {
		request.SignatureAlgorithm = x509.SHA256WithRSAPSS // TLS 1.3 signs with PSS
	}
	_, err = x509.CreateCertificateRequest(rand.Reader, &request, c.tls.PrivateKey)
	return err
}

// tryECH proves that servers can use the Encrypted Client Hello keys. One that crypto/tls cannot
// use would fail all clients that send the extension, also those that send it without having a key.
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

// tryHandshake makes a handshake over net.Pipe, in which nobody is verified.
func (s *snapshot) tryHandshake(ctx context.Context, echConfig []byte) error {
	config, peer := newTLSConfig(), newTLSConfig()
	config.Certificates, config.EncryptedClientHelloKeys = []tls.Certificate{rehearsalCertificate()}, s.in.material.all.ECHKeys
	config.SessionTicketsDisabled = true // nobody reads them from the pipe
	peer.MinVersion, peer.ServerName, peer.InsecureSkipVerify = tls.VersionTLS13, "rehearsal.invalid", true
	peer.EncryptedClientHelloConfigList = append(binary.BigEndian.AppendUint16(nil, uint16(len(echConfig))), echConfig...)

	done := make(chan error, 2)
	end := func(conn *tls.Conn) {
		defer conn.NetConn().Close() // the other end fails of it, if it has not ended
		// Both ends may write at once where one fails, and a pipe has no buffer.
		_ = conn.SetDeadline(time.Now().Add(rehearsalTimeout))
		done <- conn.HandshakeContext(ctx)
	}
	serverEnd, clientEnd := net.Pipe()
	go end(tls.Server(serverEnd, config))
	go end(tls.Client(clientEnd, peer))
	return cmp.Or(<-done, <-done)
}

// rehearsalCertificate is one for a handshake in which nobody has to be verified.
var rehearsalCertificate = sync.OnceValue(func() tls.Certificate {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // never, see crypto/rand
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		panic(err) // never, of this template
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})
