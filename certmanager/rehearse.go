package certmanager

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
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

// tryKeys proves that keys that are not in service yet can sign: those of devices last, so that the
// time for others is not taken from theirs.
func (k *comparison) tryKeys(ctx context.Context) (errs []error) {
	wait := rehearsalTimeout // for all keys of devices
	if k.previous.generation > 0 {
		wait = keyWait
	}
	try := func(c *certificate, ctx context.Context) {
		if err := c.tryKey(ctx); err != nil {
			errs = append(errs, c.wrap(fmt.Errorf("%w: its key does not sign: %w", ErrInvalid, err)))
		}
	}
	var devices []*certificate
	pace := pacer{on: k.previous.generation > 0}
	for _, c := range k.certs {
		switch _, device := c.tls.PrivateKey.(*deviceKey); {
		case k.served[c] || c.proven.Load():
		case device:
			devices = append(devices, c)
		default:
			pace.step()
			try(c, ctx)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("the key did not sign within %v", wait))
	defer cancel()
	for _, c := range devices {
		try(c, ctx)
	}
	return errs
}

// tryKey waits for a signature, but for that of a device only until ctx ends, and 10 ms at least,
// since other keys may have used all of the time. A later call then gets its result; no other
// signature is requested meanwhile.
func (c *certificate) tryKey(ctx context.Context) error {
	if _, device := c.tls.PrivateKey.(*deviceKey); !device {
		return c.sign()
	}
	if !c.trying.CompareAndSwap(false, true) {
		return errKeyBusy
	}
	outcome := start("the key", func() (any, error) {
		defer c.trying.Store(false)
		return nil, c.sign()
	})
	select {
	case r := <-outcome:
		return r.err
	case <-ctx.Done():
	}
	select {
	case r := <-outcome:
		return r.err
	case <-time.After(10 * time.Millisecond):
		return context.Cause(ctx)
	}
}

// sign signs a certificate request with the key; crypto/x509 verifies the signature.
func (c *certificate) sign() (err error) {
	defer recovered("the key of "+c.origin, &err)
	var request x509.CertificateRequest
	if schemes := c.tls.SupportedSignatureAlgorithms; c.key == rsaKey && (schemes == nil || slices.Contains(schemes, tls.PSSWithSHA256)) {
		request.SignatureAlgorithm = x509.SHA256WithRSAPSS // TLS 1.3 signs with PSS
	}
	_, err = x509.CreateCertificateRequest(rand.Reader, &request, c.tls.PrivateKey)
	c.proven.Store(err == nil)
	return err
}

// tryECH proves that servers can use the Encrypted Client Hello keys. With a key that crypto/tls
// cannot use, every client that sends the extension would fail, even without a real key (GREASE).
func (s *snapshot) tryECH(ctx context.Context) error {
	if s.names.fallback.none() && !s.in.material.late {
		return nil // no server
	}
	for _, key := range s.in.material.all.ECHKeys {
		if err := s.tryHello(ctx, key.Config); err != nil {
			return fmt.Errorf("%w: Encrypted Client Hello key: rehearsed handshake: %w", ErrInvalid, err)
		}
	}
	return nil
}

// tryHello begins a handshake over net.Pipe. It ends when the server looks for a certificate.
func (s *snapshot) tryHello(ctx context.Context, echConfig []byte) error {
	const name = "rehearsal.invalid"
	var decrypted atomic.Bool
	config, peer := newTLSConfig(), newTLSConfig()
	config.EncryptedClientHelloKeys = s.in.material.all.ECHKeys
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		decrypted.Store(hello.ServerName == name)
		return nil, errors.New("the key does not belong to its config")
	}
	peer.MinVersion, peer.ServerName = tls.VersionTLS13, name
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
	err := cmp.Or(<-done, <-done)
	if decrypted.Load() {
		return nil
	}
	return err
}
